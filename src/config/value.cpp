#include "config/value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/unicode.h"

namespace tailor {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
  });
  return text;
}

bool in_range(const Setting& s, double x) {
  return x >= s.low && x <= s.high && !(s.open_low && x == s.low) && !(s.open_high && x == s.high);
}

std::optional<Json> whole(const Setting& s, const YamlNode& node) {
  const std::optional<double> x = plain_number(node);
  if (!x || std::floor(*x) != *x || std::abs(*x) > 9007199254740992.0 || !in_range(s, *x)) return {};
  return Json(static_cast<std::int64_t>(*x));
}

/// In a file a plain word that is a number, a flag or nothing is not a text.
std::optional<std::string> text(const YamlNode& node, bool typed) {
  if (node.kind != YamlNode::Kind::kScalar) return {};
  if (!typed && !node.quoted && (plain_number(node) || plain_flag(node))) return {};
  if (node.text.empty()) return {};
  return node.text;
}

std::optional<Json> texts(const YamlNode& node, bool commas, bool typed) {
  Json out = Json::array();
  const auto add = [&](const std::string& value) {
    for (std::size_t at = 0; commas && at <= value.size();) {
      const std::size_t end = std::min(value.find(',', at), value.size());
      const auto part = trim(std::string_view(value).substr(at, end - at));
      if (!part.empty()) out.push_back(std::string(part));
      at = end + 1;
    }
    if (!commas) out.push_back(value);
  };
  if (const auto one = text(node, typed)) {
    add(*one);
  } else if (node.kind == YamlNode::Kind::kList) {
    for (const YamlNode& item : node.items) {
      const auto value = text(item, typed);
      if (!value) return {};
      add(*value);
    }
  } else {
    return {};
  }
  return out.empty() ? std::nullopt : std::optional(out);
}

bool is_name(std::string_view text) {
  const auto letter = [](char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !text.empty() && letter(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::optional<Json> read_map(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kMap || node.entries.empty()) return {};
  Json out = Json::object();
  for (const YamlEntry& entry : node.entries) {
    if (!is_name(entry.name) || out.contains(entry.name)) return {};
    out[entry.name] = plain_json(entry.value);
  }
  return out;
}

}  // namespace

std::optional<double> plain_number(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar || node.quoted) return {};
  std::string_view word = node.text;
  if (word.starts_with('+')) word.remove_prefix(1);
  if (word.empty() || (word[0] != '-' && word[0] != '.' && (word[0] < '0' || word[0] > '9'))) return {};
  double value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size() || !std::isfinite(value)) return {};
  return value;
}

std::optional<bool> plain_flag(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar || node.quoted) return {};
  const std::string word = lower(node.text);
  if (word == "true" || word == "yes" || word == "on") return true;
  if (word == "false" || word == "no" || word == "off") return false;
  return {};
}

Json plain_json(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kScalar:
      if (const auto flag = plain_flag(node)) return *flag;
      if (const auto number = plain_number(node))
        return std::floor(*number) == *number && std::abs(*number) < 1e15 ? Json(static_cast<std::int64_t>(*number))
                                                                          : Json(*number);
      return node.text;
    case YamlNode::Kind::kList: {
      Json out = Json::array();
      for (const YamlNode& item : node.items) out.push_back(plain_json(item));
      return out;
    }
    case YamlNode::Kind::kMap: {
      Json out = Json::object();
      for (const YamlEntry& entry : node.entries) out[entry.name] = plain_json(entry.value);
      return out;
    }
  }
  return nullptr;
}

std::optional<Json> read_value(const Setting& s, const YamlNode& node, bool typed) {
  switch (s.kind) {
    case ValueKind::kNumber: {
      const auto x = plain_number(node);
      return x && in_range(s, *x) ? std::optional<Json>(*x) : std::nullopt;
    }
    case ValueKind::kWhole:
      return whole(s, node);
    case ValueKind::kFlag: {
      const auto flag = plain_flag(node);
      return flag ? std::optional<Json>(*flag) : std::nullopt;
    }
    case ValueKind::kText: {
      const auto value = text(node, typed);
      return value ? std::optional<Json>(*value) : std::nullopt;
    }
    case ValueKind::kCharacter: {
      if (node.kind != YamlNode::Kind::kScalar) return {};
      if (node.text == "tab" || node.text == "\\t") return Json("\t");
      return node.text.size() == 1 ? std::optional<Json>(node.text) : std::nullopt;
    }
    case ValueKind::kChoice: {
      const auto value = text(node, typed);
      const bool known = value && std::find(s.choices.begin(), s.choices.end(), *value) != s.choices.end();
      return known ? std::optional<Json>(*value) : std::nullopt;
    }
    case ValueKind::kTexts:
      return texts(node, false, typed);
    case ValueKind::kNames:
      if (s.may_be_empty && node.kind == YamlNode::Kind::kList && node.items.empty()) return Json::array();
      return texts(node, true, typed);
    case ValueKind::kWholes: {
      if (node.kind != YamlNode::Kind::kList || (node.items.empty() && !s.may_be_empty)) return {};
      Json out = Json::array();
      for (const YamlNode& item : node.items) {
        const auto value = whole(s, item);
        if (!value) return {};
        out.push_back(*value);
      }
      return out;
    }
    case ValueKind::kValues:
      return read_map(node);
  }
  return {};
}

Result<Json> read_name_values(const std::vector<std::string>& words, std::string_view flag) {
  Json out = Json::object();
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos || !is_name(name)) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} {}: expected name=value", flag, word),
                   fmt::format("{} enable_thinking=false", flag)};
    }
    TAILOR_TRY(const YamlNode value,
               parse_yaml(std::string_view(word).substr(equals + 1), fmt::format("{} {}", flag, name)));
    const Json read = plain_json(value);
    if (out.contains(name) && out[name] != read)
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {} is given twice", flag, name), "keep one of them"};
    out[name] = read;
  }
  return out;
}

std::string expected_of(const Setting& s) {
  const auto range = [&](std::string_view what) {
    const std::string low = fmt::format("{} {}", s.open_low ? "above" : "from", s.low);
    const std::string high = s.open_high ? fmt::format("below {}", s.high) : fmt::format("to {}", s.high);
    return fmt::format("{} {}{} {}", what, low, s.open_low ? "," : "",
                       s.open_low && !s.open_high ? "up " + high : high);
  };
  switch (s.kind) {
    case ValueKind::kNumber:
      return range("a number");
    case ValueKind::kWhole:
      return range("a whole number");
    case ValueKind::kFlag:
      return "true or false";
    case ValueKind::kText:
      return "a text";
    case ValueKind::kCharacter:
      return "one character or the word tab";
    case ValueKind::kChoice:
      return fmt::format("one of {}", fmt::join(s.choices, ", "));
    case ValueKind::kTexts:
      return "a text or a list of texts";
    case ValueKind::kNames:
      return "a name or a list of names";
    case ValueKind::kWholes:
      return "a list of whole numbers " + range("").substr(1);
    case ValueKind::kValues:
      return "a map of names to values";
  }
  return "";
}

std::string seen_of(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kList:
      return node.items.empty() ? "an empty list" : "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      if (plain_number(node)) return fmt::format("the number {}", node.text);
      if (plain_flag(node)) return node.text;
      return fmt::format("the text \"{}\"", shorten(node.text, 60));
  }
  return "";
}

}  // namespace tailor
