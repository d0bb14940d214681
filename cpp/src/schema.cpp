#include "schema.hpp"

#include <string_view>

#include "schema_text.hpp"
#include "text.hpp"

namespace pd {
namespace {

using Problem = std::optional<std::string>;

// A keyword that a schema has not stands for nothing.
const Json *keyword(const Json &schema, const char *name) {
  const auto found = schema.find(name);
  return found == schema.end() ? nullptr : &*found;
}

std::string literal(const Json &value) {
  return value.is_string() ? repr(value.get_ref<const std::string &>()) : value.dump();
}

// "'a', 'b' or 'c'".
std::string alternatives(const Json &values) {
  std::string all;
  for (std::size_t index = 0; index < values.size(); ++index) {
    all += index == 0 ? "" : index + 1 == values.size() ? " or " : ", ";
    all += literal(values[index]);
  }
  return all;
}

// Checks by the keywords that pydantic writes: no general validator.
class Validator {
 public:
  explicit Validator(const Json &root) : definitions_(root.at("$defs")) {}

  Problem check(const Json &schema, const Json &value, const std::string &place) const {
    if (const Json *reference = keyword(schema, "$ref")) {
      const auto &path = reference->get_ref<const std::string &>();
      return check(definitions_.at(path.substr(path.rfind('/') + 1)), value, place);
    }
    if (const Json *any = keyword(schema, "anyOf")) return check_any(*any, value, place);
    if (keyword(schema, "discriminator") != nullptr) return check_tagged(schema, value, place);
    if (const Json *wanted = keyword(schema, "const")) {
      return value == *wanted ? Problem() : says(place, "Input should be " + literal(*wanted));
    }
    if (const Json *wanted = keyword(schema, "enum")) {
      const bool found = std::find(wanted->begin(), wanted->end(), value) != wanted->end();
      return found ? Problem() : says(place, "Input should be " + alternatives(*wanted));
    }
    const auto &type = schema.at("type").get_ref<const std::string &>();
    if (type == "object") return check_object(schema, value, place);
    if (type == "array") return check_array(schema, value, place);
    if (type == "string") return check_string(schema, value, place);
    if (type == "null") return value.is_null() ? Problem() : says(place, "Input should be None");
    return check_number(schema, value, place, type == "integer");
  }

 private:
  static Problem says(const std::string &place, const std::string &message) {
    return (place.empty() ? "manifest" : place) + ": " + message;
  }

  static std::string inside(const std::string &place, const std::string &name) {
    return place.empty() ? name : place + "." + name;
  }

  Problem check_any(const Json &options, const Json &value, const std::string &place) const {
    const Json *first = nullptr;
    std::size_t others = 0;
    for (const Json &option : options) {
      const Json *type = keyword(option, "type");
      if (type != nullptr && *type == "null") {
        if (value.is_null()) return {};
        continue;
      }
      if (!check(option, value, place)) return {};
      if (first == nullptr) first = &option;
      ++others;
    }
    // pydantic names the option that it speaks of where there are several.
    return check(*first, value, others > 1 ? inside(place, option_name(*first)) : place);
  }

  static std::string option_name(const Json &schema) {
    const std::string type = schema.value("type", "");
    return type == "integer" ? "int" : type == "string" ? "str" : type;
  }

  Problem check_tagged(const Json &schema, const Json &value, const std::string &place) const {
    const Json &discriminator = schema.at("discriminator"), &mapping = discriminator.at("mapping");
    const auto &name = discriminator.at("propertyName").get_ref<const std::string &>();
    if (!value.is_object()) return says(place, "Input should be a valid dictionary or object to extract fields from");
    const Json *tag = keyword(value, name.c_str());
    if (tag == nullptr) return says(place, "Unable to extract tag using discriminator " + repr(name));
    const Json *chosen = tag->is_string() ? keyword(mapping, tag->get_ref<const std::string &>().c_str()) : nullptr;
    if (chosen != nullptr) return check(Json{{"$ref", *chosen}}, value, inside(place, tag->get<std::string>()));
    const std::string tags = joined(schema.at("oneOf"), [&](const Json &option) {
      for (const auto &[known, reference] : mapping.items()) {
        if (reference == option.at("$ref")) return repr(known);
      }
      return std::string();
    });
    return says(place, concat("Input tag ", repr(tag->is_string() ? tag->get<std::string>() : tag->dump()),
                              " found using ", repr(name), " does not match any of the expected tags: ", tags));
  }

  Problem check_object(const Json &schema, const Json &value, const std::string &place) const {
    const Json *properties = keyword(schema, "properties");
    if (!value.is_object()) {
      const std::string instance = properties == nullptr ? "" : " or instance of " + schema.value("title", "");
      return says(place, "Input should be a valid dictionary" + instance);
    }
    return properties == nullptr ? check_items(schema, value, place) : check_fields(schema, *properties, value, place);
  }

  Problem check_fields(const Json &schema, const Json &properties, const Json &value, const std::string &place) const {
    const Json *required = keyword(schema, "required");
    for (const auto &[name, field] : properties.items()) {
      if (const Json *found = keyword(value, name.c_str())) {
        if (Problem problem = check(field, *found, inside(place, name))) return problem;
      } else if (required != nullptr && std::find(required->begin(), required->end(), name) != required->end()) {
        return says(inside(place, name), "Field required");
      }
    }
    const Json *others = keyword(schema, "additionalProperties");
    if (others != nullptr && *others == true) return {};
    for (const auto &[name, item] : value.items()) {
      if (!properties.contains(name)) return says(inside(place, name), "Extra inputs are not permitted");
    }
    return {};
  }

  Problem check_items(const Json &schema, const Json &value, const std::string &place) const {
    const Json *names = keyword(schema, "propertyNames"), *items = keyword(schema, "additionalProperties");
    for (const auto &[name, item] : value.items()) {
      if (names != nullptr) {
        if (Problem problem = check(*names, Json(name), inside(inside(place, name), "[key]"))) return problem;
      }
      if (items != nullptr && items->is_object()) {
        if (Problem problem = check(*items, item, inside(place, name))) return problem;
      }
    }
    return {};
  }

  Problem check_array(const Json &schema, const Json &value, const std::string &place) const {
    if (!value.is_array()) return says(place, "Input should be a valid tuple");
    const Json *fixed = keyword(schema, "prefixItems"), *items = keyword(schema, "items");
    for (std::size_t index = 0; index < (fixed ? fixed->size() : value.size()); ++index) {
      const std::string here = inside(place, std::to_string(index));
      if (index >= value.size()) return says(here, "Field required");
      const Json *item = fixed ? &(*fixed)[index] : items;
      if (item == nullptr) continue;
      if (Problem problem = check(*item, value[index], here)) return problem;
    }
    const Json *least = keyword(schema, "minItems"), *most = keyword(schema, "maxItems");
    if (least != nullptr && value.size() < least->get<std::size_t>()) return counted(place, "least", *least, value);
    if (most != nullptr && value.size() > most->get<std::size_t>()) return counted(place, "most", *most, value);
    return {};
  }

  static Problem counted(const std::string &place, const char *bound, const Json &limit, const Json &value) {
    const auto count = limit.get<std::size_t>();
    return says(place, concat("Tuple should have at ", bound, " ", count, count == 1 ? " item" : " items",
                              " after validation, not ", value.size()));
  }

  Problem check_string(const Json &schema, const Json &value, const std::string &place) const {
    if (!value.is_string()) return says(place, "Input should be a valid string");
    const Json *pattern = keyword(schema, "pattern");
    if (pattern == nullptr || is_digest(value.get_ref<const std::string &>())) return {};
    return says(place, "String should match pattern " + repr(pattern->get_ref<const std::string &>()));
  }

  // The only pattern of the schema, as a test checks.
  static bool is_digest(std::string_view text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  }

  Problem check_number(const Json &schema, const Json &value, const std::string &place, bool whole) const {
    const Json *least = keyword(schema, "minimum"), *beyond = keyword(schema, "exclusiveMinimum");
    if (whole ? !value.is_number_integer() : !value.is_number()) {
      return says(place, whole ? "Input should be a valid integer" : "Input should be a valid number");
    }
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX) {
      return says(place, "Input should be an integer of 64 bits");
    }
    if (least != nullptr && value < *least) {
      return says(place, "Input should be greater than or equal to " + least->dump());
    }
    if (beyond != nullptr && value <= *beyond) return says(place, "Input should be greater than " + beyond->dump());
    return {};
  }

  const Json &definitions_;
};

}  // namespace

std::optional<std::string> schema_problem(const Json &document) {
  static const Json schema = Json::parse(kSchemaText);
  return Validator(schema).check(schema, document, "");
}

}  // namespace pd
