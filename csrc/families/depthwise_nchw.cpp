// Few channels a group, contiguous; see aot/kernels/depthwise_nchw.py.
#include "families/depthwise_nchw.hpp"

#include "families/depthwise.hpp"

namespace convt::depthwise_nchw {
namespace {

using depthwise::Walk;

struct Shape {
  Walk rows;
  depthwise::Tiling of;
  std::int64_t programs = 0;  // of a plane
  std::int64_t planes = 0;
};

Shape shape(const Traits& t, const Problem& problem, const Gpu& gpu) noexcept {
  const Walk rows = depthwise::walk(problem.h, t.rows);
  const std::int64_t columns =
      cdiv(problem.w.out(), std::max<std::int64_t>(t.stride, 1) * t.pixels);
  const std::int64_t planes = problem.batch * problem.out_channels;
  const double times = product(planes, problem.d.out(), rows.places);
  // A program of two tiles computes its indices once for both. More tiles would write to places of
  // memory that lie too far apart at one time.
  const double wanted = product(gpu.multiprocessors, 48);
  const auto of = depthwise::tiling(t.threads, rows.quotients, columns, 2, times, wanted);
  return {.rows = rows,
          .of = of,
          .programs = of.programs_w * of.programs_h * rows.places,
          .planes = planes};
}

bool serves(const Traits& t, const Problem& problem) noexcept {
  const Axis& w = problem.w;
  if (t.stride == 0) return true;
  if (t.stride != w.stride || w.dilation > 1 || problem.weight[4] != 1) return false;
  if (t.aligned && w.out() % (t.stride * t.pixels) != 0) return false;
  return t.taps == 0 || (t.taps == cdiv(w.kernel, w.stride) && t.shift == w.padding % w.stride);
}

// Fitted to the kernel's table; see depthwise::microseconds.
double of_a_million(const Traits& t, const Problem& problem) noexcept {
  const double taps = depthwise::taps(problem);
  if (t.stride == 0) return 1.6 * taps;
  const double loads = 0.6 / product(t.stride, t.stride);
  const double known = 0.1 * taps + loads + (t.aligned ? 0.0 : 0.3);
  return t.taps == 0 ? 2.3 * known : known;
}

double microseconds(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const Shape s = shape(t, problem, gpu);
  if (!serves(t, problem) || product(problem.h.in, problem.w.in) > kInt32 ||
      product(problem.h.out(), problem.w.out()) > kInt32 || problem.d.out() > kGridLayers ||
      product(s.programs, s.planes) > kInt32)
    return kNever;
  const double outputs = product(s.of.tiles(), s.rows.places, s.planes, problem.d.out(), t.threads,
                                 t.rows, t.pixels, std::max<std::int64_t>(t.stride, 1));
  return depthwise::microseconds(problem, gpu, outputs, of_a_million(t, problem));
}

Program program(const Config& config, const Problem& problem, const Gpu& gpu) {
  const Traits t = traits(*config.variant);
  const auto [rows, of, programs, planes] = shape(t, problem, gpu);
  // The last input that any output of a quotient takes: its tap for the quotient's first output.
  const Axis& w = problem.w;
  const std::int64_t shift = t.stride == 0 ? 0 : w.padding % t.stride;
  const std::int64_t first_tap = shift > 0 ? shift - t.stride : 0;
  const std::int64_t first_in =
      t.stride == 0 ? 0 : w.padding / t.stride + (shift > 0 && t.taps == 0);
  const Arguments arguments(
      problem, {.period_h = rows.period,
                .pace_h = rows.pace,
                .first_out_h = rows.first_out,
                .first_in_h = rows.first_in,
                .first_tap_w = first_tap,
                .first_in_w = first_in,
                .steps_w = t.stride == 0 ? w.most_taps() : cdiv(w.kernel - first_tap, t.stride),
                .tile_h = of.tile_h,
                .tile_w = of.tile_w,
                .inverse_tile = cdiv(1 << 16, of.tile_w),
                .rounds = of.rounds,
                .programs = programs,
                .programs_w = of.programs_w,
                .programs_h = of.programs_h,
                .by_programs = divisor(programs),
                .by_programs_w = divisor(of.programs_w),
                .by_programs_h = divisor(of.programs_h),
                .by_channels = divisor(problem.out_channels)});
  return one_launch(config, gpu, grid_of(programs * planes, problem.d.out()), arguments);
}

const char* unsupported(const Problem& problem) noexcept {
  return depthwise::unsupported(problem, Layout::nchw);
}

}  // namespace

const Family kFamily{.reason = depthwise::kReason,
                     .unsupported = &unsupported,
                     .microseconds = &microseconds,
                     .program = &program};

}  // namespace convt::depthwise_nchw
