// Sizes of a shape: numbers, axes, and expressions of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pd {

// Values by name, in the order of the file. They are so few that looking at one after the other is fastest.
template <class T>
using Named = std::vector<std::pair<std::string, T>>;

template <class T>
const T *find(const Named<T> &items, std::string_view name) {
  for (const auto &[key, item] : items) {
    if (key == name) return &item;
  }
  return nullptr;
}

// Numbers by the name of the axis, or of the value of an input ("clip_size[3]"), that they are.
using Sizes = Named<std::int64_t>;

// A product of numbers and axes, with whole divisions, and a number subtracted at the end: "16*queries_audio",
// "samples/16", "frames*height*width-1". The same language as `evaluate_size` in perceiver_deploy/bundle/manifest.py.
class Size {
 public:
  explicit Size(std::int64_t number);

  // Throws BundleError where the text is not such an expression.
  explicit Size(const std::string &text);

  // Throws BundleError for an axis that `sizes` does not have, a division by zero or a result beyond 64 bits.
  std::int64_t evaluate(const Sizes &sizes) const;

  // Whether `sizes` has all that it depends on.
  bool follows_from(const Sizes &sizes) const;

  const std::string &text() const { return text_; }
  bool is_number() const { return factors_.size() == 1 && factors_[0].name.empty() && subtracted_ == 0; }
  // The name of an axis or of a value, and nothing else.
  bool is_name() const { return factors_.size() == 1 && factors_[0].name == text_; }
  // Names of the axes in it, without the index of a value.
  std::vector<std::string> axes() const;

 private:
  struct Factor {
    bool divides;
    std::int64_t number;
    std::string name;  // of an axis; empty where the factor is a number
  };
  std::string text_;
  std::vector<Factor> factors_;
  std::int64_t subtracted_ = 0;
};

}  // namespace pd
