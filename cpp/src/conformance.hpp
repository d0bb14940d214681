// Whether graphs give their own numbers here: a golden sample is run once and held to what the graphs give exactly. As
// perceiver_deploy/runtimes/conformance.py.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "error.hpp"
#include "executor.hpp"

namespace pd {

// On the output that is farthest from what is exact, in terms of its bound on relative L2. `distance` is infinite where an
// output is not finite.
struct Verdict {
  bool conforms;
  std::string sample, output;
  double distance, bound;
  std::string problem;  // why there is nothing to compare; empty where there is

  // "output 'logits' of the golden sample 'opt' is off by 2.1e-01 (relative L2), where rounding allows at most 1.0e-05"
  std::string text() const;
};

// A verdict, or why there can be none.
struct Conformance {
  std::optional<Verdict> verdict;
  std::string unknown;

  bool refused() const { return verdict && !verdict->conforms; }
  // "conforms", "unknown: REASON" or "does not conform: REASON".
  std::string text() const;
};

// What is checked: all that a verdict depends on.
struct Subject {
  const Bundle &bundle;
  std::string variant;
  std::string way;                 // "full", or "stages": encoder and decoder, one after the other
  std::vector<std::string> files;  // that are run
  std::string runtime, version, device;

  // What is thrown where it does not conform, with what to do.
  ParityError refusal(const Verdict &verdict) const;
};

// Runs the whole model by what is checked.
using RunWhole = std::function<std::vector<Output>(const Tensors &)>;

// The verdict in the user's cache, or where there is none, or it is asked for `anew`, one that is kept there from now on.
// Throws BundleError where the sample or the exact outputs were changed or are something else.
Conformance find_conformance(const Subject &subject, const RunWhole &run, bool anew);

}  // namespace pd
