// The bundle that the tests run: one of image classification, with inputs for it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <perceiver_deploy/perceiver_deploy.hpp>

namespace testing_bundle {

inline std::string path() {
  const char *given = std::getenv("PERCEIVER_DEPLOY_TEST_BUNDLE");
  if (given == nullptr || *given == 0) {
    throw std::runtime_error("PERCEIVER_DEPLOY_TEST_BUNDLE is not set; give it a bundle of image classification");
  }
  return given;
}

inline perceiver_deploy::Options one_thread() {
  perceiver_deploy::Options options;
  options.threads = 1;
  return options;
}

// Pixels of a batch of images, other ones for each seed.
inline std::vector<float> pixels(std::int64_t batch, std::int64_t height, std::int64_t width, int seed = 0) {
  std::vector<float> values(static_cast<std::size_t>(batch * 3 * height * width));
  for (std::size_t index = 0; index < values.size(); ++index) {
    values[index] = std::sin(static_cast<float>(index) * 0.7f + static_cast<float>(seed));
  }
  return values;
}

}  // namespace testing_bundle
