// classify BUNDLE IMAGE...: the three likeliest classes of each image, by a bundle made with `export --raw-inputs`.
// What the model wants done to the pixels is in its graph.
#define STB_IMAGE_IMPLEMENTATION
#define STBI_FAILURE_USERMSG
#include <stb/stb_image.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <perceiver_deploy/perceiver_deploy.hpp>

namespace pd = perceiver_deploy;

static void classify(const pd::Session &session, const std::vector<std::string> &labels, const char *file) {
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void *)> pixels(stbi_load(file, &width, &height, &channels, 3),
                                                          stbi_image_free);
  if (!pixels) throw std::runtime_error(std::string(file) + " cannot be read: " + stbi_failure_reason());
  const auto bytes = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3;
  const pd::Outputs outputs = session.run({{"image_uint8", pixels.get(), bytes, {1, height, width, 3}}});

  const auto logits = outputs["logits"].values<float>();
  const float most = *std::max_element(logits.begin(), logits.end());
  const float sum = std::accumulate(logits.begin(), logits.end(), 0.0f,
                                    [=](float total, float logit) { return total + std::exp(logit - most); });
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  order.resize(std::min<std::size_t>(order.size(), 3));
  std::printf("%s:", file);
  for (const std::size_t index : order) {
    const std::string name = index < labels.size() ? labels[index] : std::to_string(index);
    std::printf("  %s %.1f %%", name.c_str(), 100.0 * std::exp(logits[index] - most) / sum);
  }
  std::printf("\n");
}

int main(int count, char **arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s BUNDLE IMAGE...\n", arguments[0]);
    return PD_USAGE;
  }
  try {
    const pd::Session session(arguments[1]);
    const std::vector<std::string> labels = session.labels();
    for (int index = 2; index < count; ++index)
      classify(session, labels, arguments[index]);
    return PD_OK;
  } catch (const pd::Error &error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return error.status();
  } catch (const std::exception &error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return PD_ERROR;
  }
}
