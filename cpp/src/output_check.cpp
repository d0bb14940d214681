#include "output_check.hpp"

#include <algorithm>

#include "dtypes.hpp"
#include "inputs.hpp"
#include "text.hpp"

namespace pd {
namespace {

constexpr const char *kRemedy =
    "This runtime does not compute this graph as it is written: use another runtime, or another version of it.";

}  // namespace

ParityError wrong_dtype(const std::string &runtime, const TensorSpec &spec, std::string_view found) {
  return ParityError(concat(runtime, " gives output ", repr(spec.name), " in ", found, "; the manifest says ",
                            dtype_info(spec.dtype)->name, ". ", kRemedy));
}

void check_shape(const std::string &runtime, const TensorSpec &spec, const std::vector<std::int64_t> &shape,
                 const Sizes &sizes) {
  const auto fits = [&](const Size &wanted, std::int64_t size) {
    return !wanted.follows_from(sizes) || wanted.evaluate(sizes) == size;
  };
  if (std::equal(spec.shape.begin(), spec.shape.end(), shape.begin(), shape.end(), fits)) return;
  std::string expected = spec.shape_text();
  const auto known = [&](const Size &size) { return size.follows_from(sizes); };
  if (std::all_of(spec.shape.begin(), spec.shape.end(), known)) {
    const std::vector<std::int64_t> numbers = evaluate_shape(spec.shape, sizes);
    expected += " = " + list_text(numbers.data(), numbers.size());
  }
  throw ParityError(concat(runtime, " gives output ", repr(spec.name), " with shape ",
                           list_text(shape.data(), shape.size()), "; the manifest says ", expected, ". ", kRemedy));
}

}  // namespace pd
