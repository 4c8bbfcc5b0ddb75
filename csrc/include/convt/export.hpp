#pragma once

// The libraries are built with hidden visibility: what is marked here is the public interface.
#define CONVT_EXPORT __attribute__((visibility("default")))
