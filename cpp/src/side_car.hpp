// The side-car of an engine, `engines/NAME.json`: read, and compared with this machine before the engine is loaded. As
// in perceiver_deploy/runtimes/nvidia/side_car.py.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "inputs.hpp"

namespace pd {

// Sizes of an axis, or shapes of an input, that a profile was built for.
template <class T>
struct Range {
  T min, opt, max;
};
using Shape = std::vector<std::int64_t>;

struct SideCar {
  std::string engine;  // "tensorrt" or "tensorrt-rtx"
  std::string variant, stage;
  std::string tensorrt_version;
  std::vector<std::string> compute_capabilities;
  std::string system, machine;
  std::optional<std::string> driver;
  bool weights_stripped, hardware_compatible, version_compatible;
  std::vector<Named<Range<std::int64_t>>> axes;  // by profile
  std::vector<Named<Range<Shape>>> profiles;

  // Number of the tightest profile that takes these inputs. Throws InputError, which has the profiles.
  std::size_t profile_for(const Tensors &inputs) const;
};

// What an engine is to run on. `driver` is the kernel driver's version, where it can be known.
struct Machine {
  std::string gpu, compute_capability;
  std::string tensorrt_version;
  std::string system, machine;
  std::optional<std::string> driver;
};

// Throws BundleError where the bundle's engine of that name has none, or one that was changed or cannot be read.
SideCar read_side_car(const Bundle &bundle, const std::string &name);

// Name of the bundle's engine, the last that was built. Throws BundleError, which says how to build one.
std::string engine_of(const Bundle &bundle, const std::string &runtime, const std::string &variant,
                      const std::string &stage);

// Throws BundleError, with the command that builds the engine again for this machine, where it was built for something
// else.
void require_loadable(const SideCar &side_car, const Machine &machine, const std::string &bundle,
                      const std::string &name);

}  // namespace pd
