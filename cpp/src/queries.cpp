#include "queries.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "error.hpp"
#include "text.hpp"

namespace pd {
namespace {

std::vector<std::int64_t> counted_to(std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

std::int64_t patches_of_sound(const Stage &full, const Sizes &sizes) {
  for (const TensorSpec &spec : full.inputs) {
    if (spec.name == "audio_points" && spec.maximum) return spec.maximum->evaluate(sizes) + 1;
  }
  return 1;
}

// The values of an input that follow from sizes; empty for one that does not.
std::optional<std::vector<std::int64_t>> made(const std::string &name, const Stage &full, const Sizes &sizes) {
  const auto size = [&](const char *axis) { return Size(axis).evaluate(sizes); };
  if (name == "positions") return counted_to(size("length"));
  if (name == "points") return counted_to(size("height") * size("width"));
  if (name != "clip_size") return std::nullopt;
  return std::vector{size("frames"), size("height"), size("width"), patches_of_sound(full, sizes)};
}

}  // namespace

Queries all_queries(const Stage &decoder, const Stage &full, const Tensors &inputs, const Sizes &sizes) {
  Queries queries;
  for (const TensorSpec &spec : decoder.inputs) {
    if (spec.name == "latents") continue;
    if (const pd_tensor *input = inputs.find(spec.name)) {
      queries.tensors.push_back(*input);
      continue;
    }
    auto values = made(spec.name, full, sizes);
    if (!values) {
      throw UsageError(concat(
          "The decoder takes ", repr(spec.name), ", which the inputs ",
          joined(full.inputs, [](const TensorSpec &input) { return input.name; }),
          " do not say, so encoder and decoder cannot be run as one. Call session.encode(inputs), then session.decode "
          "with the latents and what it takes."));
    }
    auto &kept = queries.values.emplace_back(std::move(*values));
    auto &length = queries.lengths.emplace_back(static_cast<std::int64_t>(kept.size()));
    queries.tensors.push_back(
        {spec.name.c_str(), PD_INT64, &length, 1, kept.data(), kept.size() * sizeof(std::int64_t)});
  }
  return queries;
}

}  // namespace pd
