#include "self_check.hpp"

#include <algorithm>

namespace pd {
namespace {

int badness(const Conformance &conformance) {
  return conformance.refused() ? 2 : conformance.verdict ? 0 : 1;
}

}  // namespace

void SelfCheck::require(const Subject &subject, const RunWhole &run) {
  const std::lock_guard lock(mutex_);
  const auto known = known_.find(subject.way);
  const Conformance &found = known == known_.end() ? find(subject, run, false) : known->second;
  if (found.refused() && !allowed_) throw subject.refusal(*found.verdict);
}

void SelfCheck::repeat(const Subject &subject, const RunWhole &run) {
  const std::lock_guard lock(mutex_);
  const Conformance &found = find(subject, run, true);
  if (found.refused()) throw subject.refusal(*found.verdict);
}

const Conformance &SelfCheck::find(const Subject &subject, const RunWhole &run, bool anew) {
  Conformance &found = known_[subject.way] = find_conformance(subject, run, anew);
  const auto worst = std::max_element(known_.begin(), known_.end(), [](const auto &one, const auto &other) {
    return badness(one.second) < badness(other.second);
  });
  text_.store(&*texts_.insert(worst->second.text()).first, std::memory_order_release);
  return found;
}

}  // namespace pd
