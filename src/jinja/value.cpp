#include "jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/unicode.h"

namespace tailor::jinja {
namespace {

int nesting(const Value& value) {
  if (const ListBox* list = value.list()) return list->depth;
  if (const DictBox* dict = value.dict()) return dict->depth;
  return 0;
}

int checked_nesting(int inner) {
  if (inner + 1 > kMostNesting) throw Failure(fmt::format("values are nested deeper than {}", kMostNesting));
  return inner + 1;
}

/// Bytes of the code point that begins at `at`.
std::size_t code_point_bytes(std::string_view text, std::size_t at) {
  std::size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) ++end;
  return end - at;
}

std::uint32_t code_point(std::string_view bytes) {
  const auto first = static_cast<unsigned char>(bytes[0]);
  if (first < 0x80) return first;
  std::uint32_t value = bytes.size() == 2 ? first & 0x1Fu : bytes.size() == 3 ? first & 0x0Fu : first & 0x07u;
  for (std::size_t i = 1; i < bytes.size(); ++i) value = value << 6 | (static_cast<unsigned char>(bytes[i]) & 0x3Fu);
  return value;
}

void append_json_string(const MarkedText& text, bool ensure_ascii, MarkedText& out) {
  out.append("\"");
  for (std::size_t at = 0; at < text.size();) {
    const bool foreign = text.is_foreign(at);
    const std::size_t end = text.end_of_run(at);
    std::string escaped;
    while (at < end) {
      const char c = text.bytes[at];
      const auto byte = static_cast<unsigned char>(c);
      std::size_t length = 1;
      if (c == '"' || c == '\\') {
        escaped += '\\';
        escaped += c;
      } else if (c == '\n') {
        escaped += "\\n";
      } else if (c == '\r') {
        escaped += "\\r";
      } else if (c == '\t') {
        escaped += "\\t";
      } else if (c == '\b') {
        escaped += "\\b";
      } else if (c == '\f') {
        escaped += "\\f";
      } else if (byte < 0x20) {
        escaped += fmt::format("\\u{:04x}", byte);
      } else if (byte < 0x80 || !ensure_ascii) {
        escaped += c;
      } else {
        length = code_point_bytes(text.bytes, at);
        std::uint32_t value = code_point(std::string_view(text.bytes).substr(at, length));
        if (value > 0xFFFF) {
          value -= 0x10000;
          escaped += fmt::format("\\u{:04x}", 0xD800 + (value >> 10));
          value = 0xDC00 + (value & 0x3FF);
        }
        escaped += fmt::format("\\u{:04x}", value);
      }
      at += length;
    }
    out.append_as(escaped, foreign);
  }
  out.append("\"");
}

void append_json(const Value& value, const JsonStyle& style, int level, MarkedText& out, Meter& meter);

MarkedText json_key(const Value& key, const JsonStyle& style, Meter& meter) {
  MarkedText out;
  if (const MarkedText* text = key.text()) {
    append_json_string(*text, style.ensure_ascii, out);
    return out;
  }
  if (key.list() != nullptr || key.dict() != nullptr || key.is_undefined())
    throw Failure(fmt::format("a key of type {} cannot be written as JSON", type_name(key)));
  MarkedText plain;
  append_json(key, style, 0, plain, meter);
  append_json_string(plain, style.ensure_ascii, out);
  return out;
}

void append_json(const Value& value, const JsonStyle& style, int level, MarkedText& out, Meter& meter) {
  meter.work(1);
  const auto line = [&](int depth) {
    if (style.indent < 0) return;
    const std::size_t width = static_cast<std::size_t>(style.indent) * static_cast<std::size_t>(depth);
    meter.work(width / 64);
    out.append("\n" + std::string(width, ' '));
  };
  const auto each = [&](std::size_t count, char open, char close, const auto& item) {
    out.append(std::string_view(&open, 1));
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out.append(style.item_separator);
      line(level + 1);
      item(i);
    }
    if (count > 0) line(level);
    out.append(std::string_view(&close, 1));
  };
  if (const MarkedText* text = value.text()) {
    meter.work(text->size() / 16);
    append_json_string(*text, style.ensure_ascii, out);
  } else if (const ListBox* list = value.list()) {
    each(list->items.size(), '[', ']',
         [&](std::size_t i) { append_json(list->items[i], style, level + 1, out, meter); });
  } else if (const DictBox* dict = value.dict()) {
    std::vector<std::size_t> order(dict->items.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style.sort_keys) {
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return compare(dict->items[a].first, dict->items[b].first, meter) < 0;
      });
    }
    each(order.size(), '{', '}', [&](std::size_t i) {
      out.append(json_key(dict->items[order[i]].first, style, meter));
      out.append(style.key_separator);
      append_json(dict->items[order[i]].second, style, level + 1, out, meter);
    });
  } else if (value.is_none()) {
    out.append("null");
  } else if (const bool* truth = value.as<bool>()) {
    out.append(*truth ? "true" : "false");
  } else if (const auto* whole = value.as<std::int64_t>()) {
    out.append(std::to_string(*whole));
  } else if (const double* real = value.as<double>()) {
    out.append(std::isnan(*real)   ? "NaN"
               : std::isinf(*real) ? (*real > 0 ? "Infinity" : "-Infinity")
                                   : float_repr(*real));
  } else {
    throw Failure(fmt::format("a value of type {} cannot be written as JSON", type_name(value)));
  }
  if (out.size() > (std::size_t{1} << 28)) throw Failure("a text grows beyond 256 MiB");
}

}  // namespace

void Meter::too_slow() {
  throw Failure("the template takes too many steps", ErrorCode::kUnavailable);
}
void Meter::too_large() {
  throw Failure("the template takes too much memory", ErrorCode::kUnavailable);
}

bool Value::integer(std::int64_t& out) const {
  if (const auto* whole = as<std::int64_t>())
    out = *whole;
  else if (const bool* truth = as<bool>())
    out = *truth ? 1 : 0;
  else
    return false;
  return true;
}

bool Value::number(double& out) const {
  std::int64_t whole = 0;
  if (const double* real = as<double>())
    out = *real;
  else if (integer(whole))
    out = static_cast<double>(whole);
  else
    return false;
  return true;
}

const Value* DictBox::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    const MarkedText* text = name.text();
    if (text != nullptr && text->bytes == key) return &value;
  }
  return nullptr;
}

const Value* DictBox::find(const Value& key) const {
  if (const MarkedText* text = key.text()) return find(text->bytes);
  Meter unlimited(~std::uint64_t{0}, 0);  // keys are scalars
  for (const auto& [name, value] : items) {
    if (equal(name, key, unlimited)) return &value;
  }
  return nullptr;
}

const Value* NamespaceBox::find(std::string_view name) const {
  for (const auto& [key, value] : items) {
    if (key == name) return &value;
  }
  return nullptr;
}

namespace {

bool holds_namespace(const Value& value, Meter& meter) {
  meter.work(1);
  if (value.name_space() != nullptr || value.loop() != nullptr || value.function() != nullptr) return true;
  if (const ListBox* list = value.list())
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& v) { return holds_namespace(v, meter); });
  if (const DictBox* dict = value.dict())
    return std::any_of(dict->items.begin(), dict->items.end(),
                       [&](const auto& item) { return holds_namespace(item.second, meter); });
  return false;
}

}  // namespace

void NamespaceBox::set(const std::string& name, const Value& value, Meter& meter) {
  if (name.starts_with('_')) throw Failure("a namespace's names must not begin with _");
  if (holds_namespace(value, meter)) throw Failure("a namespace cannot hold another one, a loop or a function");
  for (auto& [key, held] : items) {
    if (key == name) {
      held = value;
      return;
    }
  }
  meter.hold(sizeof(Value) + name.size());
  items.emplace_back(name, value);
}

const Value* Arguments::find(std::size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value make_text(MarkedText text, Meter& meter) {
  meter.hold(text.size() + sizeof(TextBox));
  auto box = std::make_shared<TextBox>();
  box->text = std::move(text);
  box->meter = &meter;
  return Value(std::shared_ptr<const TextBox>(std::move(box)));
}

Value make_text(std::string_view own, Meter& meter) {
  return make_text(MarkedText::own(own), meter);
}

Value make_list(std::vector<Value> items, bool tuple, Meter& meter) {
  meter.hold(items.size() * sizeof(Value) + sizeof(ListBox));
  auto box = std::make_shared<ListBox>();
  box->items = std::move(items);
  box->meter = &meter;
  box->tuple = tuple;
  int deepest = 0;
  for (const Value& item : box->items) deepest = std::max(deepest, nesting(item));
  box->depth = checked_nesting(deepest);
  return Value(std::shared_ptr<const ListBox>(std::move(box)));
}

Value make_dict(std::vector<std::pair<Value, Value>> items, Meter& meter) {
  meter.hold(items.size() * 2 * sizeof(Value) + sizeof(DictBox));
  auto box = std::make_shared<DictBox>();
  box->meter = &meter;
  box->items = std::move(items);
  int deepest = 0;
  for (const auto& item : box->items) deepest = std::max(deepest, nesting(item.second));
  box->depth = checked_nesting(deepest);
  return Value(std::shared_ptr<const DictBox>(std::move(box)));
}

Value from_json(const Json& json, bool foreign, Meter& meter) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value(json.get<bool>());
    case Json::value_t::number_integer:
      return Value(json.get<std::int64_t>());
    case Json::value_t::number_unsigned: {
      const auto whole = json.get<std::uint64_t>();
      if (whole <= static_cast<std::uint64_t>(INT64_MAX)) return Value(static_cast<std::int64_t>(whole));
      return Value(static_cast<double>(whole));
    }
    case Json::value_t::number_float:
      return Value(json.get<double>());
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      return make_text(foreign ? MarkedText::of_people(text) : MarkedText::own(text), meter);
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(item, foreign, meter));
      return make_list(std::move(items), false, meter);
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& [key, value] : json.items()) {
        const bool ours = key == "role" || key == "type";
        Value name = make_text(foreign ? MarkedText::of_people(key) : MarkedText::own(key), meter);
        items.emplace_back(std::move(name), from_json(value, foreign && !ours, meter));
      }
      return make_dict(std::move(items), meter);
    }
    default:
      return Value(None{});
  }
}

bool is_true(const Value& value) {
  if (const bool* truth = value.as<bool>()) return *truth;
  if (const auto* whole = value.as<std::int64_t>()) return *whole != 0;
  if (const double* real = value.as<double>()) return *real != 0;
  if (const MarkedText* text = value.text()) return !text->empty();
  if (const ListBox* list = value.list()) return !list->items.empty();
  if (const DictBox* dict = value.dict()) return !dict->items.empty();
  return !value.is_none() && !value.is_undefined();
}

bool equal(const Value& a, const Value& b, Meter& meter) {
  meter.work(1);
  double x = 0, y = 0;
  if (a.number(x) && b.number(y)) return x == y;
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes == b.text()->bytes;
  if (const ListBox* one = a.list(), *other = b.list(); one != nullptr && other != nullptr) {
    return one->tuple == other->tuple &&
           std::equal(one->items.begin(), one->items.end(), other->items.begin(), other->items.end(),
                      [&](const Value& v, const Value& w) { return equal(v, w, meter); });
  }
  if (const DictBox* one = a.dict(), *other = b.dict(); one != nullptr && other != nullptr) {
    meter.work(one->items.size() * other->items.size() / 4);
    return one->items.size() == other->items.size() &&
           std::all_of(one->items.begin(), one->items.end(), [&](const auto& item) {
             const Value* found = other->find(item.first);
             return found != nullptr && equal(item.second, *found, meter);
           });
  }
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  if (a.function() != nullptr) return a.function() == b.function();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int compare(const Value& a, const Value& b, Meter& meter) {
  meter.work(1);
  double x = 0, y = 0;
  if (a.number(x) && b.number(y)) return x < y ? -1 : x > y ? 1 : 0;
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes.compare(b.text()->bytes);
  if (const ListBox* one = a.list(), *other = b.list(); one != nullptr && other != nullptr) {
    for (std::size_t i = 0; i < std::min(one->items.size(), other->items.size()); ++i) {
      if (!equal(one->items[i], other->items[i], meter)) return compare(one->items[i], other->items[i], meter);
    }
    return one->items.size() < other->items.size() ? -1 : one->items.size() > other->items.size() ? 1 : 0;
  }
  throw Failure(fmt::format("{} and {} cannot be put in order", type_name(a), type_name(b)));
}

std::string_view type_name(const Value& value) {
  if (value.is_undefined()) return "undefined";
  if (value.is_none()) return "None";
  if (value.as<bool>() != nullptr) return "bool";
  if (value.as<std::int64_t>() != nullptr) return "int";
  if (value.as<double>() != nullptr) return "float";
  if (value.text() != nullptr) return "str";
  if (const ListBox* list = value.list()) return list->tuple ? "tuple" : "list";
  if (value.dict() != nullptr) return "dict";
  if (value.name_space() != nullptr) return "namespace";
  if (value.loop() != nullptr) return "loop";
  return "function";
}

std::string float_repr(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

void append_repr(const Value& value, MarkedText& out, Meter& meter) {
  meter.work(1);
  if (const MarkedText* text = value.text()) {
    meter.work(text->size() / 16);
    const char quote =
        text->bytes.find('\'') != std::string::npos && text->bytes.find('"') == std::string::npos ? '"' : '\'';
    out.append(std::string_view(&quote, 1));
    for (std::size_t at = 0; at < text->size();) {
      const bool foreign = text->is_foreign(at);
      const std::size_t end = text->end_of_run(at);
      std::string shown;
      for (; at < end; ++at) {
        const char c = text->bytes[at];
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\\' || c == quote)
          shown += std::string("\\") + c;
        else if (c == '\n')
          shown += "\\n";
        else if (c == '\r')
          shown += "\\r";
        else if (c == '\t')
          shown += "\\t";
        else if (byte < 0x20 || byte == 0x7F)
          shown += fmt::format("\\x{:02x}", byte);
        else
          shown += c;
      }
      out.append_as(shown, foreign);
    }
    out.append(std::string_view(&quote, 1));
  } else if (const ListBox* list = value.list()) {
    out.append(list->tuple ? "(" : "[");
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out.append(", ");
      append_repr(list->items[i], out, meter);
    }
    if (list->tuple && list->items.size() == 1) out.append(",");
    out.append(list->tuple ? ")" : "]");
  } else if (const DictBox* dict = value.dict()) {
    out.append("{");
    for (std::size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) out.append(", ");
      append_repr(dict->items[i].first, out, meter);
      out.append(": ");
      append_repr(dict->items[i].second, out, meter);
    }
    out.append("}");
  } else if (value.is_none()) {
    out.append("None");
  } else if (value.is_undefined()) {
    out.append("Undefined");
  } else if (const bool* truth = value.as<bool>()) {
    out.append(*truth ? "True" : "False");
  } else if (const auto* whole = value.as<std::int64_t>()) {
    out.append(std::to_string(*whole));
  } else if (const double* real = value.as<double>()) {
    out.append(float_repr(*real));
  } else {
    out.append(fmt::format("<{}>", type_name(value)));
  }
}

MarkedText to_text(const Value& value, Meter& meter) {
  if (const MarkedText* text = value.text()) {
    meter.work(text->size() / 64);
    return *text;
  }
  MarkedText out;
  if (!value.is_undefined()) append_repr(value, out, meter);
  return out;
}

MarkedText to_json_text(const Value& value, const JsonStyle& style, Meter& meter) {
  MarkedText out;
  append_json(value, style, 0, out, meter);
  return out;
}

std::vector<Value> items_of(const Value& value, Meter& meter) {
  if (const ListBox* list = value.list()) {
    meter.work(list->items.size());
    return list->items;
  }
  std::vector<Value> out;
  if (const DictBox* dict = value.dict()) {
    meter.work(dict->items.size());
    for (const auto& item : dict->items) out.push_back(item.first);
    return out;
  }
  if (const MarkedText* text = value.text()) {
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t length = code_point_bytes(text->bytes, at);
      out.push_back(make_text(text->part(at, at + length), meter));
      at += length;
    }
    return out;
  }
  if (value.is_undefined()) return out;
  throw Failure(fmt::format("a value of type {} cannot be looped over", type_name(value)));
}

std::size_t length_of(const Value& value) {
  if (const MarkedText* text = value.text()) return count_code_points(text->bytes);
  if (const ListBox* list = value.list()) return list->items.size();
  if (const DictBox* dict = value.dict()) return dict->items.size();
  if (value.is_undefined()) return 0;
  throw Failure(fmt::format("a value of type {} has no length", type_name(value)));
}

}  // namespace tailor::jinja
