// Arrays of an .npz file that is not compressed, as np.savez writes it. Nothing that the file says is trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "expression.hpp"
#include "perceiver_deploy/perceiver_deploy.h"

namespace pd {

// An array in C order.
struct Array {
  pd_dtype dtype;
  std::vector<std::int64_t> shape;
  std::vector<char> data;

  // `name` and this array have to stay where they are.
  pd_tensor tensor(const char *name) { return {name, dtype, shape.data(), shape.size(), data.data(), data.size()}; }
};

// Arrays by name, without those of other dtypes than models have (a name, for example). Nothing where one of them is
// compressed, as older versions of perceiver-deploy wrote them. Throws BundleError where the file cannot be read or is
// something else.
std::optional<Named<Array>> read_npz(const std::string &path);

// The same of a file's content; `path` is for messages.
std::optional<Named<Array>> parse_npz(std::string_view content, const std::string &path);

}  // namespace pd
