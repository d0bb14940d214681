// Refuses inputs that a model does not take, saying what was expected, before anything runs. As `check_inputs` in
// perceiver_deploy/runtimes/session.py.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "manifest.hpp"
#include "perceiver_deploy/perceiver_deploy.h"

namespace pd {

// Inputs in any order; nothing is owned.
struct Tensors {
  const pd_tensor *data;
  std::size_t count;

  const pd_tensor *begin() const { return data; }
  const pd_tensor *end() const { return data + count; }
  const pd_tensor *find(std::string_view name) const;
};

// Sizes of the axes, and values of inputs of a fixed length, that checked inputs have. Throws InputError on the first
// problem found.
Sizes check_inputs(const Tensors &inputs, const std::vector<TensorSpec> &specs, const Named<Axis> &axes);

// Numbers that a shape stands for.
std::vector<std::int64_t> evaluate_shape(const std::vector<Size> &shape, const Sizes &sizes);

bool has_shape(const pd_tensor &tensor, const std::vector<Size> &shape, const Sizes &sizes);

// Bytes of a tensor of that shape. Throws InputError where its memory is missing or smaller.
std::size_t checked_bytes(const pd_tensor &tensor);

}  // namespace pd
