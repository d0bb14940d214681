#include "expression.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "error.hpp"
#include "text.hpp"

namespace pd {
namespace {

constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

BundleError malformed(const std::string &text) {
  return BundleError(concat("The size ", repr(text),
                            " is not an expression of axes; expected numbers and axes with * or / between, and a number "
                            "subtracted. Export the checkpoint again."));
}

// Takes the letters that are in `set` off the front.
std::string_view take(std::string_view &rest, std::string_view set) {
  const std::size_t length = std::min(rest.find_first_not_of(set), rest.size());
  const std::string_view taken = rest.substr(0, length);
  rest.remove_prefix(length);
  return taken;
}

bool to_number(std::string_view digits, std::int64_t &number) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && end == digits.data() + digits.size();
}

}  // namespace

Size::Size(std::int64_t number) : text_(std::to_string(number)), factors_{{false, number, ""}} {}

Size::Size(const std::string &text) : text_(text) {
  std::string_view rest = text;
  for (bool divides = false;; divides = rest.front() == '/', rest.remove_prefix(1)) {
    std::string_view name = take(rest, kLetters);
    std::int64_t number = 0;
    if (to_number(name, number)) {
      factors_.push_back({divides, number, ""});
    } else if (!name.empty() && kDigits.find(name.front()) == std::string_view::npos) {
      std::string full(name);
      if (!rest.empty() && rest.front() == '[') {
        rest.remove_prefix(1);
        full += "[" + std::string(take(rest, kDigits)) + "]";
        if (rest.empty() || rest.front() != ']') throw malformed(text);
        rest.remove_prefix(1);
      }
      factors_.push_back({divides, 0, full});
    } else {
      throw malformed(text);
    }
    if (rest.empty() || rest.front() == '-') break;
    if (rest.front() != '*' && rest.front() != '/') throw malformed(text);
  }
  if (!rest.empty() && !to_number(rest.substr(1), subtracted_)) throw malformed(text);
}

std::int64_t Size::evaluate(const Sizes &sizes) const {
  std::int64_t value = 1;
  for (const Factor &factor : factors_) {
    std::int64_t number = factor.number;
    if (!factor.name.empty()) {
      const std::int64_t *found = find(sizes, factor.name);
      if (found == nullptr) {
        throw BundleError(concat("The size ", repr(text_), " depends on ", repr(factor.name),
                                 ", which the inputs do not say. Export the checkpoint again."));
      }
      number = *found;
    }
    if (factor.divides ? number <= 0 : __builtin_mul_overflow(value, number, &value)) {
      throw BundleError(concat("The size ", repr(text_), " cannot be computed: ", number, " is out of its range."));
    }
    if (factor.divides) value /= number;
  }
  if (__builtin_sub_overflow(value, subtracted_, &value)) {
    throw BundleError(concat("The size ", repr(text_), " cannot be computed: it is beyond 64 bits."));
  }
  return value;
}

bool Size::follows_from(const Sizes &sizes) const {
  return std::all_of(factors_.begin(), factors_.end(), [&](const Factor &factor) {
    return factor.name.empty() || find(sizes, factor.name) != nullptr;
  });
}

std::vector<std::string> Size::axes() const {
  std::vector<std::string> names;
  for (const Factor &factor : factors_) {
    if (!factor.name.empty()) names.push_back(factor.name.substr(0, factor.name.find('[')));
  }
  return names;
}

}  // namespace pd
