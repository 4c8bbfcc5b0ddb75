// Few channels a group, channels_last; see aot/kernels/depthwise_nhwc.py.
#include "families/depthwise_nhwc.hpp"

#include "families/depthwise.hpp"

namespace convt::depthwise_nhwc {
namespace {

using depthwise::Walk;

struct Shape {
  Walk rows, columns;
  std::int64_t tile_c = 0;
  depthwise::Tiling of;
  std::int64_t programs = 0;  // of an image
  std::int64_t images = 0, channel_tiles = 0;
};

Shape shape(const Traits& t, const Problem& problem, const Gpu& gpu) noexcept {
  Shape s;
  s.rows = depthwise::walk(problem.h, t.rows);
  s.columns = depthwise::walk(problem.w, t.columns);
  // Flat threads lie along positions and channels at once: a tile has all channels that there are.
  const bool flat = t.vector == 1;
  s.channel_tiles = cdiv(problem.out_channels, flat ? t.positions : t.channels);
  s.tile_c = flat ? cdiv(problem.out_channels, s.channel_tiles) : t.channels;
  s.images = problem.batch * problem.d.out();
  const double times = product(s.images, s.channel_tiles, s.rows.places);
  s.of = depthwise::tiling(flat ? t.positions / s.tile_c : t.positions, s.rows.quotients,
                           cdiv(s.columns.quotients, t.pixels), kInt32, times,
                           product(gpu.multiprocessors, 12));
  s.programs = s.of.programs_w * s.of.programs_h * s.rows.places;
  return s;
}

// The most taps that a program needs of one depth of the kernel; see the kernel's docstring.
std::int64_t taps_of_a_depth(const Traits& t, const Problem& problem) noexcept {
  const std::int64_t period = problem.h.phases().period;
  const std::int64_t rounds = cdiv(problem.h.kernel + t.rows - 1, period);
  return ((rounds - 1) * std::min(period, t.rows) + t.rows) * problem.w.kernel;
}

bool serves(const Traits& t, const Problem& problem) noexcept {
  const Axis& w = problem.w;
  if (t.vector > 1 && (problem.group_in() > 1 || problem.group_out() > 1 || !problem.aligned ||
                       problem.out_channels % t.vector != 0))
    return false;
  if (t.columns > 1 && (w.dilation > 1 || w.stride % t.columns != 0)) return false;
  if (t.sliding && (w.phases().shift != 1 || problem.weight[4] != 1)) return false;
  return t.taps == 0 || t.taps == w.most_taps();
}

// Fitted to the kernel's table; see depthwise::microseconds.
double of_a_million(const Traits& t, const Problem& problem) noexcept {
  const double taps = depthwise::taps(problem);
  const double known =
      t.vector == 1 ? 0.5 + 0.5 * taps : 0.3 + 0.08 * taps + 0.3 / product(problem.w.stride);
  return t.taps > 0 ? known : t.sliding ? 1.4 * known : 2.0 * known;
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Shape s = shape(t, problem, gpu);
  if (!serves(t, problem) || taps_of_a_depth(t, problem) > t.room ||
      product(problem.h.in, problem.w.in, problem.in_channels) > kInt32 ||
      product(problem.h.out(), problem.w.out(), problem.out_channels) > kInt32 ||
      product(problem.in_channels, problem.weight[0]) > kInt32 ||
      product(s.programs, s.images) > kInt32 || s.channel_tiles > kGridLayers)
    return kNever;
  const double threads = t.vector == 1 ? product(t.positions) : product(t.positions, t.channels);
  const double outputs = product(s.of.tiles(), s.rows.places, s.columns.places, s.images,
                                 s.channel_tiles, t.rows, t.columns, t.pixels) *
                         threads;
  return depthwise::microseconds(problem, gpu, outputs, of_a_million(t, problem));
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Shape s = shape(t, problem, gpu);
  // All taps that a program needs are copied at once, if there is room for them.
  const std::int64_t depth = problem.d.most_taps();
  const bool lasting = problem.group_in() == 1 && depth * taps_of_a_depth(t, problem) <= t.room;
  const Arguments arguments(problem, {.period_h = s.rows.period,
                                      .pace_h = s.rows.pace,
                                      .first_out_h = s.rows.first_out,
                                      .first_in_h = s.rows.first_in,
                                      .period_w = s.columns.period,
                                      .pace_w = s.columns.pace,
                                      .first_out_w = s.columns.first_out,
                                      .first_in_w = s.columns.first_in,
                                      .places_w = s.columns.places,
                                      .tile_h = s.of.tile_h,
                                      .tile_w = s.of.tile_w,
                                      .inverse_tile = cdiv(1 << 16, s.of.tile_w),
                                      .tile_c = s.tile_c,
                                      .inverse_c = cdiv(1 << 16, s.tile_c),
                                      .rounds = s.of.rounds,
                                      .programs = s.programs,
                                      .programs_w = s.of.programs_w,
                                      .programs_h = s.of.programs_h,
                                      .kept_d = lasting ? depth : 1,
                                      .lasting = lasting,
                                      .by_programs = divisor(s.programs),
                                      .by_programs_w = divisor(s.of.programs_w),
                                      .by_programs_h = divisor(s.of.programs_h),
                                      .by_kernel_w = divisor(problem.w.kernel)});
  return one_launch(config, gpu, grid_of(s.programs * s.images, s.channel_tiles), arguments);
}

const char* unsupported(const Problem& problem) noexcept {
  return depthwise::unsupported(problem, Layout::nhwc);
}

}  // namespace

const Family kFamily{.reason = depthwise::kReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::depthwise_nhwc
