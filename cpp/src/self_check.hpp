// What a session knows of its own graphs, and refuses.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "conformance.hpp"

namespace pd {

// Any number of threads may use it at once.
class SelfCheck {
 public:
  // `allowed`: what does not conform is run all the same.
  explicit SelfCheck(bool allowed) : allowed_(allowed) {}

  // Finds what is to be known of a way, once. Throws ParityError where it does not conform and is not allowed.
  void require(const Subject &subject, const RunWhole &run);

  // Finds it anew. Throws ParityError where it does not conform, allowed or not.
  void repeat(const Subject &subject, const RunWhole &run);

  // Conformance::text of the way that is worst off of those that were asked for. Lives as long as this object.
  const std::string &text() const { return *text_.load(std::memory_order_acquire); }

 private:
  const Conformance &find(const Subject &subject, const RunWhole &run, bool anew);

  const bool allowed_;
  std::mutex mutex_;
  std::map<std::string, Conformance> known_;  // by way
  std::set<std::string> texts_{""};
  std::atomic<const std::string *> text_ = &*texts_.begin();
};

}  // namespace pd
