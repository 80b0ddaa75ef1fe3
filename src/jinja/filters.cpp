#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "jinja/builtins.h"
#include "text/unicode.h"

namespace tailor::jinja {
namespace {

const Value& needed(const Arguments& given, std::size_t place, std::string_view name, std::string_view filter) {
  const Value* value = given.find(place, name);
  if (value == nullptr) throw Failure(fmt::format("{} needs an argument", filter));
  return *value;
}

MarkedText text_of(const Value& input, Interpreter& run) {
  return to_text(input, run.meter());
}

/// item.a.b or item[0], as filters name attributes.
Value path(const Value& item, const Value& attribute, Interpreter& run) {
  if (attribute.text() == nullptr) return run.item(item, attribute);
  Value value = item;
  const std::string& name = attribute.text()->bytes;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    const bool number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos;
    value = run.item(value, number ? Value(static_cast<std::int64_t>(std::stoi(part))) : make_text(part, run.meter()));
    begin = end + 1;
  }
  return value;
}

Value folded(const Value& value, bool case_sensitive, Interpreter& run) {
  if (case_sensitive || value.text() == nullptr) return value;
  return run.text(changed(*value.text(), lower));
}

Value default_value(Interpreter&, const Value& input, const Arguments& given) {
  const bool also_false = truth_argument(given, 1, "boolean", false);
  if (!input.is_undefined() && !(also_false && !is_true(input))) return input;
  static const Value kEmpty(std::make_shared<const TextBox>());
  const Value* value = given.find(0, "default_value");
  return value != nullptr ? *value : kEmpty;
}

Value trim_filter(Interpreter& run, const Value& input, const Arguments& given) {
  return run.text(stripped(text_of(input, run), given.find(0, "chars"), true, true, run));
}

template <std::string (*change)(std::string_view)>
Value with_change(Interpreter& run, const Value& input, const Arguments&) {
  return run.text(changed(text_of(input, run), change));
}

/// Jinja's own: a word begins after white space, - ( { [ or <.
Value title_filter(Interpreter& run, const Value& input, const Arguments&) {
  const MarkedText text = text_of(input, run);
  MarkedText out;
  bool begins = true;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at + 1;
    while (end < text.size() && (static_cast<unsigned char>(text.bytes[end]) & 0xC0u) == 0x80u) ++end;
    const std::string_view c = std::string_view(text.bytes).substr(at, end - at);
    out.append_as(begins ? upper(c) : lower(c), text.is_foreign(at));
    begins = c == "-" || c == "(" || c == "{" || c == "[" || c == "<" || trim(c).empty();
    at = end;
  }
  return run.text(std::move(out));
}

Value replace_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText from = text_of(needed(given, 0, "old", "replace"), run),
                   to = text_of(needed(given, 1, "new", "replace"), run);
  const Value* count = given.find(2, "count");
  return run.text(replaced(text_of(input, run), from, to,
                           count == nullptr || count->is_none() ? -1 : integer_argument(given, 2, "count", -1), run));
}

Value length_filter(Interpreter&, const Value& input, const Arguments&) {
  return Value(static_cast<std::int64_t>(length_of(input)));
}

Value first_filter(Interpreter& run, const Value& input, const Arguments&) {
  const std::vector<Value> items = items_of(input, run.meter());
  return items.empty() ? Value(Undefined{"there is no first item in an empty sequence"}) : items.front();
}
Value last_filter(Interpreter& run, const Value& input, const Arguments&) {
  const std::vector<Value> items = items_of(input, run.meter());
  return items.empty() ? Value(Undefined{"there is no last item in an empty sequence"}) : items.back();
}
Value list_filter(Interpreter& run, const Value& input, const Arguments&) {
  return make_list(items_of(input, run.meter()), false, run.meter());
}
Value reverse_filter(Interpreter& run, const Value& input, const Arguments&) {
  std::vector<Value> items = items_of(input, run.meter());
  std::reverse(items.begin(), items.end());
  if (input.text() == nullptr) return make_list(std::move(items), false, run.meter());
  MarkedText out;
  for (const Value& c : items) out.append(*c.text());
  return run.text(std::move(out));
}

Value join_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const Value* separator = given.find(0, "d");
  const Value* attribute = given.find(1, "attribute");
  const MarkedText between = separator != nullptr ? text_of(*separator, run) : MarkedText();
  MarkedText out;
  bool first = true;
  for (const Value& item : items_of(input, run.meter())) {
    if (!first) out.append(between);
    first = false;
    out.append(text_of(attribute != nullptr && !attribute->is_none() ? path(item, *attribute, run) : item, run));
    run.meter().work(between.size() / 16 + 1);
    if (out.size() > (std::size_t{1} << 28)) throw Failure("a text grows beyond 256 MiB");
  }
  return run.text(std::move(out));
}

/// map and select take None for an empty list.
std::vector<Value> items_if_any(const Value& input, Interpreter& run) {
  return is_true(input) ? items_of(input, run.meter()) : std::vector<Value>();
}

Value map_filter(Interpreter& run, const Value& input, const Arguments& given) {
  std::vector<Value> out;
  const Value* attribute = given.positional.empty() ? given.find(0, "attribute") : nullptr;
  Arguments rest;
  if (attribute == nullptr) {
    if (given.positional.empty() || given.positional[0].text() == nullptr)
      throw Failure("map needs an attribute or the name of a filter");
    rest.positional.assign(given.positional.begin() + 1, given.positional.end());
    rest.named = given.named;
  }
  const Value* standard = given.find(given.positional.size(), "default");
  for (const Value& item : items_if_any(input, run)) {
    if (attribute == nullptr) {
      out.push_back(run.apply_filter(given.positional[0].text()->bytes, item, rest));
    } else {
      Value value = path(item, *attribute, run);
      out.push_back(value.is_undefined() && standard != nullptr ? *standard : std::move(value));
    }
  }
  return make_list(std::move(out), false, run.meter());
}

template <bool by_attribute, bool keep>
Value select_filter(Interpreter& run, const Value& input, const Arguments& given) {
  constexpr std::size_t kTest = by_attribute ? 1 : 0;
  if (given.positional.size() < kTest) throw Failure("selectattr needs an attribute");
  Arguments rest;
  const bool tests = given.positional.size() > kTest;
  if (tests) {
    if (given.positional[kTest].text() == nullptr) throw Failure("select needs the name of a test");
    rest.positional.assign(given.positional.begin() + kTest + 1, given.positional.end());
    rest.named = given.named;
  }
  std::vector<Value> out;
  for (const Value& item : items_if_any(input, run)) {
    const Value value = by_attribute ? path(item, given.positional[0], run) : item;
    const bool holds = tests ? run.apply_test(given.positional[kTest].text()->bytes, value, rest) : is_true(value);
    if (holds == keep) out.push_back(item);
  }
  return make_list(std::move(out), false, run.meter());
}

Value sort_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const bool reverse = truth_argument(given, 0, "reverse", false);
  const bool case_sensitive = truth_argument(given, 1, "case_sensitive", false);
  const Value* attribute = given.find(2, "attribute");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items_of(input, run.meter())) {
    const Value key = attribute != nullptr && !attribute->is_none() ? path(item, *attribute, run) : item;
    keyed.emplace_back(folded(key, case_sensitive, run), item);
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    const int order = compare(a.first, b.first, run.meter());
    return reverse ? order > 0 : order < 0;
  });
  std::vector<Value> out;
  for (auto& item : keyed) out.push_back(std::move(item.second));
  return make_list(std::move(out), false, run.meter());
}

Value dictsort_filter(Interpreter& run, const Value& input, const Arguments& given) {
  if (input.dict() == nullptr) throw Failure("dictsort takes a dictionary");
  const bool case_sensitive = truth_argument(given, 0, "case_sensitive", false);
  const MarkedText* by = text_argument(given, 1, "by");
  const bool by_value = by != nullptr && by->bytes == "value";
  const bool reverse = truth_argument(given, 2, "reverse", false);
  auto items = input.dict()->items;
  std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
    const int order = compare(folded(by_value ? a.second : a.first, case_sensitive, run),
                              folded(by_value ? b.second : b.first, case_sensitive, run), run.meter());
    return reverse ? order > 0 : order < 0;
  });
  std::vector<Value> out;
  for (auto& [key, value] : items) out.push_back(make_list({key, value}, true, run.meter()));
  return make_list(std::move(out), false, run.meter());
}

Value unique_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const bool case_sensitive = truth_argument(given, 0, "case_sensitive", false);
  const Value* attribute = given.find(1, "attribute");
  std::vector<Value> out, seen;
  for (const Value& item : items_of(input, run.meter())) {
    const Value key = folded(attribute != nullptr ? path(item, *attribute, run) : item, case_sensitive, run);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& v) { return equal(v, key, run.meter()); })) continue;
    seen.push_back(key);
    out.push_back(item);
  }
  return make_list(std::move(out), false, run.meter());
}

template <int sign>
Value extreme_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const bool case_sensitive = truth_argument(given, 0, "case_sensitive", false);
  const Value* attribute = given.find(1, "attribute");
  const std::vector<Value> items = items_of(input, run.meter());
  if (items.empty()) return Value(Undefined{"an empty sequence has no smallest or largest item"});
  const auto key = [&](const Value& v) {
    return folded(attribute != nullptr ? path(v, *attribute, run) : v, case_sensitive, run);
  };
  const Value* best = &items.front();
  for (const Value& item : items) {
    if (compare(key(item), key(*best), run.meter()) * sign > 0) best = &item;
  }
  return *best;
}

Value sum_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const Value* attribute = given.find(0, "attribute");
  double real = 0;
  std::int64_t whole = 0;
  bool is_whole = true;
  for (const Value& item : items_of(input, run.meter())) {
    const Value value = attribute != nullptr && !attribute->is_none() ? path(item, *attribute, run) : item;
    double x = 0;
    std::int64_t i = 0;
    if (!value.number(x)) throw Failure("sum takes numbers");
    real += x;
    is_whole = is_whole && value.integer(i) && !__builtin_add_overflow(whole, i, &whole);
  }
  return is_whole ? Value(whole) : Value(real);
}

Value items_filter(Interpreter& run, const Value& input, const Arguments& given) {
  if (input.is_undefined()) return make_list({}, false, run.meter());
  if (input.dict() == nullptr) throw Failure("items takes a dictionary");
  return find_method(input, "items")(run, input, given);
}

Value tojson_filter(Interpreter& run, const Value& input, const Arguments& given) {
  JsonStyle style;
  style.ensure_ascii = truth_argument(given, 0, "ensure_ascii", false);
  const Value* indent = given.find(1, "indent");
  if (indent != nullptr && !indent->is_none()) {
    const std::int64_t width = integer_argument(given, 1, "indent", 0);
    if (width > 64) throw Failure("tojson: an indent above 64");
    style.indent = static_cast<int>(std::max<std::int64_t>(width, 0));
    style.item_separator = ",";
  }
  if (const Value* separators = given.find(2, "separators"); separators != nullptr && !separators->is_none()) {
    const std::vector<Value> both = items_of(*separators, run.meter());
    if (both.size() != 2) throw Failure("tojson: separators are two texts");
    style.item_separator = text_of(both[0], run).bytes;
    style.key_separator = text_of(both[1], run).bytes;
  }
  style.sort_keys = truth_argument(given, 3, "sort_keys", false);
  return run.text(to_json_text(input, style, run.meter()));
}

Value string_filter(Interpreter& run, const Value& input, const Arguments&) {
  return input.text() != nullptr ? input : run.text(text_of(input, run));
}

Value int_filter(Interpreter& run, const Value& input, const Arguments& given) {
  std::int64_t whole = 0;
  if (input.integer(whole)) return Value(whole);
  double real = 0;
  if (const double* number = input.as<double>()) {
    real = *number;
  } else if (const MarkedText* text = input.text()) {
    std::string digits(trim(text->bytes));
    std::erase(digits, '_');
    if (digits.starts_with('+')) digits.erase(0, 1);
    const char* const end = digits.data() + digits.size();
    if (std::from_chars(digits.data(), end, whole).ptr == end && !digits.empty()) return Value(whole);
    if (digits.empty() || std::from_chars(digits.data(), end, real).ptr != end)
      return Value(integer_argument(given, 0, "default", 0));
  } else {
    return Value(integer_argument(given, 0, "default", 0));
  }
  (void)run;
  if (!(std::abs(real) < 9e18)) return Value(integer_argument(given, 0, "default", 0));
  return Value(static_cast<std::int64_t>(real));
}

Value float_filter(Interpreter&, const Value& input, const Arguments& given) {
  double real = 0;
  if (input.number(real)) return Value(real);
  if (const MarkedText* text = input.text()) {
    const std::string_view digits = trim(text->bytes);
    if (!digits.empty() &&
        std::from_chars(digits.data(), digits.data() + digits.size(), real).ptr == digits.data() + digits.size())
      return Value(real);
  }
  const Value* standard = given.find(0, "default");
  return standard != nullptr ? *standard : Value(0.0);
}

Value abs_filter(Interpreter&, const Value& input, const Arguments&) {
  std::int64_t whole = 0;
  double real = 0;
  if (input.integer(whole) && whole != INT64_MIN) return Value(whole < 0 ? -whole : whole);
  if (input.number(real)) return Value(std::abs(real));
  throw Failure("abs takes a number");
}

Value round_filter(Interpreter&, const Value& input, const Arguments& given) {
  double real = 0;
  if (!input.number(real)) throw Failure("round takes a number");
  const std::int64_t digits = std::clamp<std::int64_t>(integer_argument(given, 0, "precision", 0), -300, 300);
  const MarkedText* method = text_argument(given, 1, "method");
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = real * scale;
  if (method != nullptr && method->bytes == "ceil") return Value(std::ceil(scaled) / scale);
  if (method != nullptr && method->bytes == "floor") return Value(std::floor(scaled) / scale);
  return Value(std::nearbyint(scaled) / scale);
}

Value indent_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const Value* width = given.find(0, "width");
  MarkedText margin = MarkedText::own("    ");
  if (width != nullptr) {
    std::int64_t count = 0;
    if (width->text() != nullptr) {
      margin = *width->text();
    } else if (width->integer(count) && count <= 1000) {
      margin = MarkedText::own(std::string(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), ' '));
    } else {
      throw Failure("indent takes a number up to 1000, or a text");
    }
  }
  const bool first = truth_argument(given, 1, "first", false), blank = truth_argument(given, 2, "blank", false);
  const MarkedText text = text_of(input, run);
  MarkedText out;
  if (first) out.append(margin);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.bytes.find('\n', begin), text.size());
    if (begin > 0 && (blank || end > begin)) {
      out.append(margin);
      run.meter().work(margin.size() / 64 + 1);
    }
    out.append(text.part(begin, std::min(end + 1, text.size())));
    if (out.size() > (std::size_t{1} << 28)) throw Failure("a text grows beyond 256 MiB");
    if (end == text.size()) break;
    begin = end + 1;
  }
  return run.text(std::move(out));
}

Value escape_filter(Interpreter& run, const Value& input, const Arguments&) {
  return run.text(changed(text_of(input, run), [](std::string_view part) {
    std::string out;
    for (const char c : part) {
      if (c == '&')
        out += "&amp;";
      else if (c == '<')
        out += "&lt;";
      else if (c == '>')
        out += "&gt;";
      else if (c == '"')
        out += "&#34;";
      else if (c == '\'')
        out += "&#39;";
      else
        out += c;
    }
    return out;
  }));
}

/// printf's %s, %d and %%.
Value format_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText pattern = text_of(input, run);
  MarkedText out;
  std::size_t next = 0;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    if (pattern.bytes[at] != '%') {
      out.append(pattern.part(at, at + 1));
      continue;
    }
    const char kind = at + 1 < pattern.size() ? pattern.bytes[at + 1] : '\0';
    ++at;
    if (kind == '%') {
      out.append("%");
      continue;
    }
    if (kind != 's' && kind != 'd') throw Failure("format takes %s, %d and %% alone");
    const Value* value = given.find(next++, "");
    if (value == nullptr) throw Failure("format is given too few values");
    out.append(text_of(*value, run));
  }
  return run.text(std::move(out));
}

Value wordcount_filter(Interpreter& run, const Value& input, const Arguments&) {
  const Value text = run.text(text_of(input, run));
  return Value(static_cast<std::int64_t>(find_method(text, "split")(run, text, {}).list()->items.size()));
}

Value attr_filter(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText* name = text_argument(given, 0, "name");
  if (name == nullptr) throw Failure("attr takes a name");
  return run.attribute(input, name->bytes);
}

struct Named {
  std::string_view name;
  Builtin call;
};

constexpr Named kFilters[] = {
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"length", length_filter},
    {"count", length_filter},
    {"default", default_value},
    {"d", default_value},
    {"string", string_filter},
    {"safe", string_filter},
    {"join", join_filter},
    {"items", items_filter},
    {"upper", with_change<upper>},
    {"lower", with_change<lower>},
    {"capitalize", with_change<capitalized>},
    {"title", title_filter},
    {"replace", replace_filter},
    {"first", first_filter},
    {"last", last_filter},
    {"list", list_filter},
    {"reverse", reverse_filter},
    {"map", map_filter},
    {"select", select_filter<false, true>},
    {"reject", select_filter<false, false>},
    {"selectattr", select_filter<true, true>},
    {"rejectattr", select_filter<true, false>},
    {"sort", sort_filter},
    {"dictsort", dictsort_filter},
    {"unique", unique_filter},
    {"min", extreme_filter<-1>},
    {"max", extreme_filter<1>},
    {"sum", sum_filter},
    {"int", int_filter},
    {"float", float_filter},
    {"abs", abs_filter},
    {"round", round_filter},
    {"indent", indent_filter},
    {"escape", escape_filter},
    {"e", escape_filter},
    {"format", format_filter},
    {"wordcount", wordcount_filter},
    {"attr", attr_filter},
};

}  // namespace

Builtin find_filter(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kFilters), std::end(kFilters), [&](const Named& f) { return f.name == name; });
  return found == std::end(kFilters) ? nullptr : found->call;
}

const MarkedText* text_argument(const Arguments& arguments, std::size_t place, std::string_view name) {
  const Value* value = arguments.find(place, name);
  if (value == nullptr || value->is_none()) return nullptr;
  if (value->text() == nullptr)
    throw Failure(fmt::format("expected a text as argument, saw a value of type {}", type_name(*value)));
  return value->text();
}

std::int64_t integer_argument(const Arguments& arguments, std::size_t place, std::string_view name,
                              std::int64_t standard) {
  const Value* value = arguments.find(place, name);
  if (value == nullptr) return standard;
  std::int64_t out = 0;
  if (!value->integer(out))
    throw Failure(fmt::format("expected a whole number as argument, saw a value of type {}", type_name(*value)));
  return out;
}

bool truth_argument(const Arguments& arguments, std::size_t place, std::string_view name, bool standard) {
  const Value* value = arguments.find(place, name);
  return value == nullptr ? standard : is_true(*value);
}

}  // namespace tailor::jinja
