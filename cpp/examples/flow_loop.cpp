// flow_loop BUNDLE: a live loop. Reads frames from standard input (binary PPM pictures one after the other) and prints,
// for each pair of neighbours, how far the picture moved on average and how long the model took. The bundle is one of
// optical flow, made with `export --raw-inputs`. From a camera:
//
//   ffmpeg -i /dev/video0 -vf scale=64:48 -f image2pipe -c:v ppm - | flow_loop flow.bundle
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <perceiver_deploy/perceiver_deploy.hpp>

namespace pd = perceiver_deploy;

struct Frames {
  std::int64_t height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // [2, height, width, 3], the earlier frame first
};

// Moves the later frame forward and reads the next one after it. False at the end of the input.
static bool read_frame(std::istream &input, Frames &frames) {
  std::string magic;
  std::int64_t width = 0, height = 0, most = 0;
  if (!(input >> magic)) return false;
  input >> width >> height >> most;
  input.get();  // one white space before the pixels
  const bool changed = frames.width != 0 && (width != frames.width || height != frames.height);
  if (magic != "P6" || most != 255 || width < 1 || height < 1 || width > 1 << 14 || height > 1 << 14 || changed) {
    throw std::runtime_error("Expected binary PPM frames (P6, 255 levels) of one size.");
  }
  const auto bytes = static_cast<std::size_t>(width * height * 3);
  frames.width = width;
  frames.height = height;
  frames.pixels.resize(2 * bytes);
  std::copy_n(frames.pixels.begin() + static_cast<std::ptrdiff_t>(bytes), bytes, frames.pixels.begin());
  input.read(reinterpret_cast<char *>(frames.pixels.data() + bytes), static_cast<std::streamsize>(bytes));
  if (!input) throw std::runtime_error("The input ends inside a frame.");
  return true;
}

static void loop(const pd::Session &session) {
  Frames frames;
  std::vector<float> flow;  // [1, height, width, 2], in pixels; used again for every pair
  if (!read_frame(std::cin, frames)) throw std::runtime_error("There is no frame in the input.");
  for (int pair = 1; read_frame(std::cin, frames); ++pair) {
    flow.resize(static_cast<std::size_t>(frames.height * frames.width * 2));
    const auto start = std::chrono::steady_clock::now();
    session.run_into({{"frames_uint8", frames.pixels, {1, 2, frames.height, frames.width, 3}}},
                     {{"flow", flow, {1, frames.height, frames.width, 2}}});
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
    double across = 0, down = 0;
    for (std::size_t index = 0; index < flow.size(); index += 2) {
      across += flow[index];
      down += flow[index + 1];
    }
    const double count = static_cast<double>(flow.size()) / 2;
    std::printf("%d  across %+.2f px  down %+.2f px  %.1f ms\n", pair, across / count, down / count, taken.count());
    std::fflush(stdout);
  }
}

int main(int count, char **arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s BUNDLE < FRAMES\n", arguments[0]);
    return PD_USAGE;
  }
  try {
    loop(pd::Session(arguments[1]));
    return PD_OK;
  } catch (const pd::Error &error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return error.status();
  } catch (const std::exception &error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return PD_ERROR;
  }
}
