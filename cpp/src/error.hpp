// The error family of perceiver_deploy/errors.py: the same names, codes and texts.
#pragma once

#include <stdexcept>
#include <string>

#include "perceiver_deploy/perceiver_deploy.h"

namespace pd {

// A failure that the user can act on. The message is one paragraph: what happened, which value, what was expected, what
// to do. `family` is the name of Python's class.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string &message, const char *family = "PerceiverDeployError", pd_status status = PD_ERROR)
      : std::runtime_error(message), family_(family), status_(status) {}
  const char *family() const noexcept { return family_; }
  pd_status status() const noexcept { return status_; }

 private:
  const char *family_;
  pd_status status_;
};

struct BundleError : Error {
  explicit BundleError(const std::string &message) : Error(message, "BundleError") {}
};

struct InputError : Error {
  explicit InputError(const std::string &message) : Error(message, "InputError") {}
};

struct UsageError : Error {
  explicit UsageError(const std::string &message) : Error(message, "UsageError", PD_USAGE) {}
};

struct ParityError : Error {
  explicit ParityError(const std::string &message) : Error(message, "ParityError", PD_PARITY) {}
};

struct MissingError : Error {
  explicit MissingError(const std::string &message) : Error(message, "MissingError", PD_MISSING) {}
};

}  // namespace pd
