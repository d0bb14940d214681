// Holds what a runtime gives to the manifest, at every run. As perceiver_deploy/runtimes/checks/outputs.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"
#include "manifest.hpp"

namespace pd {

// What is thrown where an output has the dtype `found`.
ParityError wrong_dtype(const std::string &runtime, const TensorSpec &spec, std::string_view found);

// Throws ParityError where an output's rank or sizes are others than `sizes`, those of the inputs, lead to. A size that
// they do not lead to is not checked.
void check_shape(const std::string &runtime, const TensorSpec &spec, const std::vector<std::int64_t> &shape,
                 const Sizes &sizes);

}  // namespace pd
