// A bundle opened for reading. Its manifest is valid; each file is checked when it is asked for. As in
// perceiver_deploy/bundle/bundle.py.
#pragma once

#include <string>

#include "manifest.hpp"

namespace pd {

class Bundle {
 public:
  // Reads and checks bundle.json. Throws BundleError.
  explicit Bundle(const std::string &path);

  const std::string &path() const { return path_; }
  const Manifest &manifest() const { return manifest_; }

  // Path of a file of the bundle whose size and digest were just checked, and those of a model's external data. Throws
  // BundleError where the file is not listed, missing, changed, or lies outside the bundle.
  std::string file(const std::string &relative) const;

  // What tells a graph and its external data from any other: the digests that the manifest has of them.
  std::string graph_digest(const std::string &relative) const;

  // Throws BundleError, which lists the variants there are.
  const Variant &variant(const std::string &name) const;

  // The name of the first variant of a precision. Throws BundleError.
  const std::string &variant_of(const std::string &precision) const;

 private:
  std::string checked(const std::string &relative) const;

  std::string path_;
  Manifest manifest_;
};

}  // namespace pd
