#include "serve/field_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/json_names.h"

namespace tailor {
namespace {

const char* kind_of(const Json& value) {
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number_integer()) return "an integer";
  if (value.is_number()) return "a number";
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return "null";
}

/// "messages[].name" of "messages[12].name".
std::string without_places(std::string_view path) {
  std::string out;
  bool within = false;
  for (const char c : path) {
    if (c == ']') within = false;
    if (!within) out += c;
    if (c == '[') within = true;
  }
  return out;
}

}  // namespace

FieldReader::FieldReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) fail(ApiError::invalid(path_, fmt::format("expected an object, got {}", kind_of(object))));
}

const Json* FieldReader::find(std::string_view name) {
  if (!object_.is_object()) return nullptr;
  read_.insert(std::string(name));
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::string FieldReader::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::fail(std::string_view name, std::string message, std::string code) {
  const std::string path = path_of(name);
  fail(ApiError::invalid(path, fmt::format("'{}': {}", path, message), std::move(code)));
}

bool FieldReader::boolean(std::string_view name, bool usual) {
  const Json* value = find(name);
  if (value == nullptr) return usual;
  if (value->is_boolean()) return value->get<bool>();
  fail(name, fmt::format("expected true or false, got {}", kind_of(*value)));
  return usual;
}

double FieldReader::number(std::string_view name, double usual, double least, double most) {
  const Json* value = find(name);
  if (value == nullptr) return usual;
  if (!value->is_number()) {
    fail(name, fmt::format("expected a number, got {}", kind_of(*value)));
    return usual;
  }
  const auto out = value->get<double>();
  if (std::isfinite(out) && out >= least && out <= most) return out;
  fail(name, fmt::format("expected a number from {} to {}, got {}", least, most, out));
  return usual;
}

std::int64_t FieldReader::integer(std::string_view name, std::int64_t usual, std::int64_t least, std::int64_t most) {
  const Json* value = find(name);
  if (value == nullptr) return usual;
  if (!value->is_number_integer() &&
      !(value->is_number_float() && std::floor(value->get<double>()) == value->get<double>())) {
    fail(name, fmt::format("expected an integer, got {}", kind_of(*value)));
    return usual;
  }
  const bool large = value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  const bool far = value->is_number_float() && std::abs(value->get<double>()) > 9e15;
  const std::int64_t out = large || far ? 0 : value->get<std::int64_t>();
  if (!large && !far && out >= least && out <= most) return out;
  fail(name, fmt::format("expected an integer from {} to {}, got {}", least, most, dump_json(*value)));
  return usual;
}

std::string FieldReader::text(std::string_view name, std::string usual, std::size_t most_bytes) {
  const Json* value = find(name);
  if (value == nullptr) return usual;
  if (!value->is_string()) {
    fail(name, fmt::format("expected a string, got {}", kind_of(*value)));
    return usual;
  }
  const auto& out = value->get_ref<const std::string&>();
  if (out.size() <= most_bytes) return out;
  fail(name, fmt::format("expected at most {} bytes, got {}", most_bytes, out.size()));
  return usual;
}

std::string FieldReader::required_text(std::string_view name) {
  if (find(name) == nullptr) fail(name, "is missing", "missing_required_parameter");
  return text(name);
}

std::vector<std::string> FieldReader::texts(std::string_view name, std::size_t most, std::size_t most_bytes) {
  const Json* value = find(name);
  if (value == nullptr) return {};
  std::vector<std::string> out;
  const auto add = [&](const Json& item) {
    if (!item.is_string()) return fail(name, fmt::format("expected a string or strings, got {}", kind_of(item)));
    const auto& text = item.get_ref<const std::string&>();
    if (text.size() > most_bytes)
      return fail(name, fmt::format("expected at most {} bytes each, got {}", most_bytes, text.size()));
    out.push_back(text);
  };
  if (!value->is_array()) {
    add(*value);
    return out;
  }
  if (value->size() > most) {
    fail(name, fmt::format("expected at most {}, got {}", most, value->size()));
    return out;
  }
  for (const Json& item : *value) add(item);
  return out;
}

std::vector<std::int32_t> FieldReader::token_ids(std::string_view name, const Json& list, std::int64_t vocabulary) {
  std::vector<std::int32_t> out;
  for (const Json& t : list) {
    if (!t.is_number_integer() || t.get<std::int64_t>() < 0 || t.get<std::int64_t>() >= vocabulary) {
      fail(name, fmt::format("expected token ids below {}", vocabulary));
      return {};
    }
    out.push_back(t.get<std::int32_t>());
  }
  return out;
}

void FieldReader::join(const FieldReader& inner) {
  if (inner.error()) fail(*inner.error());
  for (const std::string& path : inner.unread()) ignore(path);
}

void FieldReader::ignore(const std::string& path) {
  if (ignored_.size() < kMostUnread && ignored_as_.insert(without_places(path)).second) ignored_.push_back(path);
}

std::vector<std::string> FieldReader::unread() const {
  std::vector<std::string> out;
  if (object_.is_object()) {
    for (const auto& [name, value] : object_.items()) {
      if (out.size() == kMostUnread) return out;
      if (!value.is_null() && !read_.contains(name)) out.push_back(path_of(name));
    }
  }
  const std::size_t room = std::min(ignored_.size(), kMostUnread - out.size());
  out.insert(out.end(), ignored_.begin(), ignored_.begin() + static_cast<std::ptrdiff_t>(room));
  return out;
}

ApiResult<Json> parse_body(std::string_view body) {
  constexpr int kDepth = 64;
  if (json_deeper_than(body, kDepth))
    return ApiError::invalid("", fmt::format("the request is nested deeper than {}", kDepth));
  constexpr std::uint64_t kMostComparisons = 1 << 26;  // of names: some 11,000 in one object, a tenth of a second
  // Names that come twice are told; ordered_json would keep the first.
  if (const auto fault = check_json_names(body, kMostComparisons, true)) {
    return ApiError::invalid(fault->name, fault->twice ? fmt::format("'{}' is given twice", fault->name)
                                                       : "an object of the request has more names than are read");
  }
  try {
    Json json = Json::parse(body);
    if (!json.is_object()) return ApiError::invalid("", fmt::format("expected a JSON object, got {}", kind_of(json)));
    return json;
  } catch (const Json::exception& e) {
    return ApiError::invalid("", "the request is not valid JSON: " + json_reason(e));
  }
}

}  // namespace tailor
