// What libFuzzer calls: the readers of what comes from outside. Only the library's own errors may come out.
#include <cstddef>
#include <cstdint>
#include <string>

#include "error.hpp"
#include "manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  const std::string text(reinterpret_cast<const char *>(data), size);
  try {
    const pd::Manifest manifest = pd::parse_manifest(text, "bundle", "bundle/bundle.json");
    pd::Sizes sizes;
    for (const auto &[name, axis] : manifest.axes)
      sizes.emplace_back(name, axis.opt);
    for (const auto &[name, stage] : manifest.stages) {
      for (const auto *specs : {&stage.inputs, &stage.outputs}) {
        for (const pd::TensorSpec &spec : *specs) {
          for (const pd::Size &wanted : spec.shape) {
            try {
              wanted.evaluate(sizes);
            } catch (const pd::BundleError &) {  // an axis that no input has, or a number beyond 64 bits
            }
          }
        }
      }
    }
  } catch (const pd::BundleError &) {
  }
  return 0;
}
