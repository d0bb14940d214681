#include "inputs.hpp"

#include <algorithm>
#include <limits>

#include "dtypes.hpp"
#include "error.hpp"
#include "text.hpp"

namespace pd {
namespace {

std::string names_of(const std::vector<TensorSpec> &specs) {
  return joined(specs, [](const TensorSpec &spec) { return spec.name; });
}

std::string shape_of(const pd_tensor &tensor) {
  return list_text(tensor.shape, tensor.rank);
}

void check_names(const Tensors &inputs, const std::vector<TensorSpec> &specs) {
  std::string_view unknown;  // the first in the alphabet
  for (const pd_tensor &input : inputs) {
    const std::string_view name = input.name;
    const bool known = std::any_of(specs.begin(), specs.end(), [&](const auto &spec) { return spec.name == name; });
    if (!known && (unknown.data() == nullptr || name < unknown)) unknown = name;
  }
  if (unknown.data() != nullptr) {
    throw InputError(concat("There is no input ", repr(unknown), ". The inputs are: ", names_of(specs), "."));
  }
  for (const pd_tensor &input : inputs) {
    if (inputs.find(input.name) != &input) throw InputError(concat("Input ", repr(input.name), " is given twice."));
  }
}

void check_array(const pd_tensor &array, const TensorSpec &spec) {
  const DtypeInfo *info = dtype_info(array.dtype);
  const std::string_view expected = dtype_info(spec.dtype)->name;
  if (info == nullptr || info->dtype != spec.dtype) {
    throw InputError(concat("Input ", repr(spec.name), " has dtype ",
                            info ? info->name : concat("number ", array.dtype), "; expected ", expected,
                            ". Convert it to ", expected, "."));
  }
  if (array.rank != spec.shape.size()) {
    throw InputError(concat("Input ", repr(spec.name), " has ", array.rank, " dimensions ", shape_of(array),
                            "; expected ", spec.shape.size(), ": ", spec.shape_text(), "."));
  }
}

// The input whose size an axis has.
const std::string &first_with(const std::string &axis, const std::vector<TensorSpec> &specs) {
  const auto has_axis = [&](const Size &size) { return size.text() == axis; };
  return std::find_if(specs.begin(), specs.end(), [&](const TensorSpec &spec) {
           return std::any_of(spec.shape.begin(), spec.shape.end(), has_axis);
         })->name;
}

void check_axes(const pd_tensor &array, const TensorSpec &spec, const std::vector<TensorSpec> &specs,
                const Named<Axis> &axes, Sizes &sizes) {
  for (std::size_t index = 0; index < array.rank; ++index) {
    const std::int64_t size = array.shape[index];
    const Size &wanted = spec.shape[index];
    if (wanted.is_number() && size != wanted.evaluate({})) {
      throw InputError(
          concat("Input ", repr(spec.name), " has shape ", shape_of(array), "; expected ", spec.shape_text(), "."));
    }
    const Axis *axis = find(axes, wanted.text());
    if (axis == nullptr) continue;
    if (const std::string problem = axis->problem(size); !problem.empty()) {
      throw InputError(concat("Input ", repr(spec.name), " has ", wanted.text(), " ", size, " (shape ", shape_of(array),
                              "); expected ", problem, ". Change the input's size or use a model made for it."));
    }
    const std::int64_t *known = find(sizes, wanted.text());
    if (known == nullptr) {
      sizes.emplace_back(wanted.text(), size);
    } else if (size != *known) {
      throw InputError(concat("Inputs ", repr(first_with(wanted.text(), specs)), " and ", repr(spec.name),
                              " must have the same ", wanted.text(), ", got ", *known, " and ", size, "."));
    }
  }
}

// Sizes that follow from axes of any input, as `samples/16` does.
void check_expressions(const pd_tensor &array, const TensorSpec &spec, const Sizes &sizes) {
  if (has_shape(array, spec.shape, sizes)) return;
  const std::vector<std::int64_t> expected = evaluate_shape(spec.shape, sizes);
  throw InputError(concat("Input ", repr(spec.name), " has shape ", shape_of(array), "; expected ", spec.shape_text(),
                          " = ", list_text(expected.data(), expected.size()), "."));
}

template <class T>
void check_range(const pd_tensor &array, std::size_t count, const TensorSpec &spec, const Sizes &sizes) {
  using Limits = std::numeric_limits<T>;
  const std::int64_t low = spec.minimum.value_or(Limits::min());
  const std::int64_t high = spec.maximum ? spec.maximum->evaluate(sizes) : Limits::max();
  if (count == 0 || (low <= Limits::min() && high >= Limits::max())) return;
  const T *values = static_cast<const T *>(array.data);
  const auto [least, most] = std::minmax_element(values, values + count);
  if (*least < low) {
    throw InputError(
        concat("Input ", repr(spec.name), " holds the value ", std::int64_t{*least}, "; expected at least ", low, "."));
  }
  if (*most > high) {
    throw InputError(
        concat("Input ", repr(spec.name), " holds the value ", std::int64_t{*most}, "; expected at most ", high, "."));
  }
}

// Bounds of values are those of whole numbers: ids, masks, indices, raw data.
void check_values(const pd_tensor &array, const TensorSpec &spec, const Sizes &sizes) {
  const std::size_t count = checked_bytes(array) / dtype_info(spec.dtype)->bytes;
  if (spec.dtype == PD_INT64) check_range<std::int64_t>(array, count, spec, sizes);
  if (spec.dtype == PD_UINT8) check_range<std::uint8_t>(array, count, spec, sizes);
  if (spec.dtype == PD_INT16) check_range<std::int16_t>(array, count, spec, sizes);
}

void add_values(const pd_tensor &array, const TensorSpec &spec, Sizes &sizes) {
  if (spec.dtype != PD_INT64 || spec.shape.size() != 1 || !spec.shape[0].is_number()) return;
  checked_bytes(array);
  for (std::int64_t index = 0; index < array.shape[0]; ++index) {
    sizes.emplace_back(spec.name + "[" + std::to_string(index) + "]",
                       static_cast<const std::int64_t *>(array.data)[index]);
  }
}

}  // namespace

const pd_tensor *Tensors::find(std::string_view name) const {
  const auto found = std::find_if(begin(), end(), [&](const pd_tensor &tensor) { return tensor.name == name; });
  return found == end() ? nullptr : found;
}

Sizes check_inputs(const Tensors &inputs, const std::vector<TensorSpec> &specs, const Named<Axis> &axes) {
  check_names(inputs, specs);
  Sizes sizes;
  sizes.reserve(axes.size());
  std::vector<std::pair<const pd_tensor &, const TensorSpec &>> given;
  given.reserve(specs.size());
  for (const TensorSpec &spec : specs) {
    const pd_tensor *input = inputs.find(spec.name);
    if (input == nullptr) {
      throw InputError(concat("Input ", repr(spec.name), " is missing. The inputs are: ", names_of(specs), "."));
    }
    check_array(*input, spec);
    check_axes(*input, spec, specs, axes, sizes);
    given.emplace_back(*input, spec);
  }
  for (const auto &[array, spec] : given)
    check_expressions(array, spec, sizes);
  for (const auto &[array, spec] : given)
    add_values(array, spec, sizes);
  for (const auto &[array, spec] : given)
    check_values(array, spec, sizes);
  return sizes;
}

std::vector<std::int64_t> evaluate_shape(const std::vector<Size> &shape, const Sizes &sizes) {
  std::vector<std::int64_t> numbers;
  numbers.reserve(shape.size());
  for (const Size &size : shape)
    numbers.push_back(size.evaluate(sizes));
  return numbers;
}

bool has_shape(const pd_tensor &tensor, const std::vector<Size> &shape, const Sizes &sizes) {
  return std::equal(shape.begin(), shape.end(), tensor.shape, tensor.shape + tensor.rank,
                    [&](const Size &wanted, std::int64_t size) { return wanted.evaluate(sizes) == size; });
}

std::size_t checked_bytes(const pd_tensor &tensor) {
  std::size_t bytes = dtype_info(tensor.dtype)->bytes;
  bool fits = true;
  for (std::size_t index = 0; index < tensor.rank; ++index) {
    fits = fits && tensor.shape[index] >= 0 &&
           !__builtin_mul_overflow(bytes, static_cast<std::size_t>(tensor.shape[index]), &bytes);
  }
  if (!fits || bytes > tensor.bytes || (bytes != 0 && tensor.data == nullptr)) {
    throw InputError(concat(repr(tensor.name), " has shape ", shape_of(tensor), " of ", dtype_info(tensor.dtype)->name,
                            ", and its memory has ", tensor.data ? tensor.bytes : 0,
                            " bytes. Give memory that holds the whole array."));
  }
  return bytes;
}

}  // namespace pd
