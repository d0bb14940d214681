// Verdicts in the user's cache: `conformance/cpp-KEY.json`, each a file of its own.
#pragma once

#include <optional>
#include <string>

#include "conformance.hpp"

namespace pd {

// Nothing where there is none, or one that cannot be read.
std::optional<Verdict> kept_verdict(const std::string &key);

// A verdict that cannot be kept is found anew the next time.
void keep_verdict(const std::string &key, const Verdict &verdict);

}  // namespace pd
