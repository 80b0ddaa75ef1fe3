#include <fmt/format.h>
#include <unicode/locid.h>
#include <unicode/unistr.h>

#include <algorithm>

#include "jinja/builtins.h"
#include "text/unicode.h"

namespace tailor::jinja {
namespace {

bool is_space(std::string_view c) {
  static constexpr std::string_view kWide[] = {"\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003",
                                               "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
                                               "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  if (c.size() == 1) return c[0] == ' ' || (c[0] >= '\t' && c[0] <= '\r') || (c[0] >= '\x1c' && c[0] <= '\x1f');
  return std::find(std::begin(kWide), std::end(kWide), c) != std::end(kWide);
}

std::size_t character_bytes(std::string_view text, std::size_t at) {
  std::size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) ++end;
  return end - at;
}

const MarkedText& subject(const Value& input) {
  return *input.text();  // find_method() gives text methods to texts alone
}

std::vector<Value> split_at(const MarkedText& text, const MarkedText& separator, std::int64_t most, bool from_right,
                            Interpreter& run) {
  if (separator.empty()) throw Failure("split() needs a separator that is not empty");
  std::vector<std::size_t> places;
  if (from_right) {
    std::size_t end = text.size();
    while (static_cast<std::int64_t>(places.size()) != most && end >= separator.size()) {
      const std::size_t at = text.bytes.rfind(separator.bytes, end - separator.size());
      if (at == std::string::npos) break;
      places.push_back(at);
      end = at;
    }
    std::reverse(places.begin(), places.end());
  } else {
    for (std::size_t at = 0; static_cast<std::int64_t>(places.size()) != most;) {
      at = text.bytes.find(separator.bytes, at);
      if (at == std::string::npos) break;
      places.push_back(at);
      at += separator.size();
    }
  }
  std::vector<Value> out;
  std::size_t begin = 0;
  for (const std::size_t at : places) {
    out.push_back(run.text(text.part(begin, at)));
    begin = at + separator.size();
  }
  out.push_back(run.text(text.part(begin, text.size())));
  return out;
}

std::vector<Value> split_words(const MarkedText& text, std::int64_t most, bool from_right, Interpreter& run) {
  std::vector<ByteRange> words;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = character_bytes(text.bytes, at);
    if (is_space(std::string_view(text.bytes).substr(at, length))) {
      at += length;
      continue;
    }
    const std::size_t begin = at;
    while (at < text.size()) {
      length = character_bytes(text.bytes, at);
      if (is_space(std::string_view(text.bytes).substr(at, length))) break;
      at += length;
    }
    words.push_back({begin, at});
  }
  const auto limit = static_cast<std::size_t>(most);
  if (most >= 0 && words.size() > limit + 1) {  // what is beyond the limit stays in one piece
    if (from_right) {
      words[words.size() - limit - 1].begin = words.front().begin;
      words.erase(words.begin(), words.end() - static_cast<std::ptrdiff_t>(limit) - 1);
    } else {
      words[limit].end = words.back().end;
      words.resize(limit + 1);
    }
  }
  std::vector<Value> out;
  for (const ByteRange& word : words) out.push_back(run.text(text.part(word.begin, word.end)));
  return out;
}

Value split(Interpreter& run, const Value& input, const Arguments& given, bool from_right) {
  const MarkedText& text = subject(input);
  run.meter().work(text.size() / 16);
  const Value* separator = given.find(0, "sep");
  const std::int64_t most = integer_argument(given, 1, "maxsplit", -1);
  if (separator == nullptr || separator->is_none())
    return make_list(split_words(text, most, from_right, run), false, run.meter());
  if (separator->text() == nullptr) throw Failure("split() takes a text");
  return make_list(split_at(text, *separator->text(), most, from_right, run), false, run.meter());
}

bool matches(Interpreter& run, const Value& input, const Arguments& given, bool at_end) {
  const std::string& text = subject(input).bytes;
  const Value* what = given.find(0, "");
  const auto one = [&](const Value& part) {
    if (part.text() == nullptr) throw Failure("startswith() and endswith() take texts");
    return at_end ? text.ends_with(part.text()->bytes) : text.starts_with(part.text()->bytes);
  };
  if (what == nullptr) throw Failure("startswith() and endswith() take a text");
  run.meter().work(1);
  if (const ListBox* list = what->list()) return std::any_of(list->items.begin(), list->items.end(), one);
  return one(*what);
}

/// str.format() with {}, {0} and {name}.
Value format(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText& pattern = subject(input);
  MarkedText out;
  std::size_t next = 0;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern.bytes[at];
    if (c != '{' && c != '}') {
      out.append(pattern.part(at, at + 1));
      continue;
    }
    if (at + 1 < pattern.size() && pattern.bytes[at + 1] == c) {
      out.append(pattern.part(at, at + 1));
      ++at;
      continue;
    }
    const std::size_t end = pattern.bytes.find('}', at);
    if (c == '}' || end == std::string::npos) throw Failure("format() has a single brace");
    const std::string name = pattern.bytes.substr(at + 1, end - at - 1);
    const Value* value = nullptr;
    if (name.empty())
      value = given.find(next++, "");
    else if (name.find_first_not_of("0123456789") == std::string::npos && name.size() < 4)
      value = given.find(static_cast<std::size_t>(std::stoi(name)), "");
    else if (name.find_first_of(":!.[") == std::string::npos)
      value = given.find(given.positional.size(), name);
    else
      throw Failure(fmt::format("format() does not take '{{{}}}' here", shorten(name, 40)));
    if (value == nullptr) throw Failure(fmt::format("format() is given no value for '{{{}}}'", shorten(name, 40)));
    out.append(to_text(*value, run.meter()));
    at = end;
  }
  return run.text(std::move(out));
}

Value find(Interpreter& run, const Value& input, const Arguments& given, bool last) {
  const MarkedText& text = subject(input);
  const MarkedText* what = text_argument(given, 0, "");
  if (what == nullptr) throw Failure("find() takes a text");
  run.meter().work(text.size() / 16);
  const std::size_t at = last ? text.bytes.rfind(what->bytes) : text.bytes.find(what->bytes);
  if (at == std::string::npos) return Value(std::int64_t{-1});
  return Value(static_cast<std::int64_t>(count_code_points(std::string_view(text.bytes).substr(0, at))));
}

Value count(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText& text = subject(input);
  const MarkedText* what = text_argument(given, 0, "");
  if (what == nullptr) throw Failure("count() takes a text");
  run.meter().work(text.size() / 16);
  if (what->empty()) return Value(static_cast<std::int64_t>(count_code_points(text.bytes) + 1));
  std::int64_t n = 0;
  for (std::size_t at = text.bytes.find(what->bytes); at != std::string::npos;
       at = text.bytes.find(what->bytes, at + what->size()))
    ++n;
  return Value(n);
}

Value split_lines(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText& text = subject(input);
  const bool keep = truth_argument(given, 0, "keepends", false);
  std::vector<Value> out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.bytes.find_first_of("\n\r\v\f", begin), text.size());
    std::size_t next = std::min(end + 1, text.size());
    if (text.bytes.compare(end, 2, "\r\n") == 0) ++next;
    out.push_back(run.text(text.part(begin, keep ? next : end)));
    begin = next;
  }
  return make_list(std::move(out), false, run.meter());
}

template <bool (*kind)(char)>
Value all_ascii(Interpreter&, const Value& input, const Arguments&) {
  const std::string& text = subject(input).bytes;
  return Value(!text.empty() && std::all_of(text.begin(), text.end(), kind));
}
bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
}
bool letter_or_digit(char c) {
  return letter(c) || digit(c);
}

Value without_affix(Interpreter& run, const Value& input, const Arguments& given, bool suffix) {
  const MarkedText& text = subject(input);
  const MarkedText* affix = text_argument(given, 0, "");
  if (affix == nullptr) throw Failure("removeprefix() and removesuffix() take a text");
  const bool there =
      !affix->empty() && (suffix ? text.bytes.ends_with(affix->bytes) : text.bytes.starts_with(affix->bytes));
  if (!there) return input;
  return run.text(suffix ? text.part(0, text.size() - affix->size()) : text.part(affix->size(), text.size()));
}

template <std::string (*change)(std::string_view)>
Value with_change(Interpreter& run, const Value& input, const Arguments&) {
  return run.text(changed(subject(input), change));
}

template <bool left, bool right>
Value strip(Interpreter& run, const Value& input, const Arguments& given) {
  return run.text(stripped(subject(input), given.find(0, "chars"), left, right, run));
}

Value replace(Interpreter& run, const Value& input, const Arguments& given) {
  const MarkedText *from = text_argument(given, 0, "old"), *to = text_argument(given, 1, "new");
  if (from == nullptr || to == nullptr) throw Failure("replace() takes two texts");
  return run.text(replaced(subject(input), *from, *to, integer_argument(given, 2, "count", -1), run));
}

Value join(Interpreter& run, const Value& input, const Arguments& given) {
  Arguments one;
  one.positional.push_back(input);
  const Value* items = given.find(0, "");
  if (items == nullptr) throw Failure("join() takes a list of texts");
  return run.apply_filter("join", *items, one);
}

// Dictionaries cannot be changed, so there is no update() or pop().
Value get(Interpreter&, const Value& input, const Arguments& given) {
  const Value* key = given.find(0, "key");
  if (key == nullptr) throw Failure("get() takes a key");
  if (const Value* found = input.dict()->find(*key)) return *found;
  const Value* standard = given.find(1, "default");
  return standard != nullptr ? *standard : Value();
}
Value keys(Interpreter& run, const Value& input, const Arguments&) {
  std::vector<Value> out;
  for (const auto& item : input.dict()->items) out.push_back(item.first);
  return make_list(std::move(out), false, run.meter());
}
Value values(Interpreter& run, const Value& input, const Arguments&) {
  std::vector<Value> out;
  for (const auto& item : input.dict()->items) out.push_back(item.second);
  return make_list(std::move(out), false, run.meter());
}
Value items(Interpreter& run, const Value& input, const Arguments&) {
  std::vector<Value> out;
  for (const auto& [key, value] : input.dict()->items) out.push_back(make_list({key, value}, true, run.meter()));
  return make_list(std::move(out), false, run.meter());
}
Value copy(Interpreter&, const Value& input, const Arguments&) {
  return input;
}

Value position(Interpreter& run, const Value& input, const Arguments& given) {
  const Value* what = given.find(0, "");
  const auto& list = input.list()->items;
  for (std::size_t i = 0; what != nullptr && i < list.size(); ++i) {
    if (equal(list[i], *what, run.meter())) return Value(static_cast<std::int64_t>(i));
  }
  throw Failure("index(): the list does not hold it");
}
Value occurrences(Interpreter& run, const Value& input, const Arguments& given) {
  const Value* what = given.find(0, "");
  if (what == nullptr) throw Failure("count() takes a value");
  const auto& list = input.list()->items;
  return Value(static_cast<std::int64_t>(
      std::count_if(list.begin(), list.end(), [&](const Value& v) { return equal(v, *what, run.meter()); })));
}
Value unchangeable(Interpreter&, const Value&, const Arguments&) {
  throw Failure("a template must not change lists and dictionaries");
}

Value cycle(Interpreter&, const Value& input, const Arguments& given) {
  if (given.positional.empty()) throw Failure("cycle() takes values");
  return given.positional[input.loop()->index % given.positional.size()];
}

struct Method {
  std::string_view name;
  Builtin call;
};

constexpr Method kTextMethods[] = {
    {"strip", strip<true, true>},
    {"lstrip", strip<true, false>},
    {"rstrip", strip<false, true>},
    {"split", [](Interpreter& r, const Value& v, const Arguments& a) { return split(r, v, a, false); }},
    {"rsplit", [](Interpreter& r, const Value& v, const Arguments& a) { return split(r, v, a, true); }},
    {"startswith", [](Interpreter& r, const Value& v, const Arguments& a) { return Value(matches(r, v, a, false)); }},
    {"endswith", [](Interpreter& r, const Value& v, const Arguments& a) { return Value(matches(r, v, a, true)); }},
    {"replace", replace},
    {"join", join},
    {"format", format},
    {"upper", with_change<upper>},
    {"lower", with_change<lower>},
    {"title", with_change<titled>},
    {"capitalize", with_change<capitalized>},
    {"find", [](Interpreter& r, const Value& v, const Arguments& a) { return find(r, v, a, false); }},
    {"rfind", [](Interpreter& r, const Value& v, const Arguments& a) { return find(r, v, a, true); }},
    {"count", count},
    {"splitlines", split_lines},
    {"isdigit", all_ascii<digit>},
    {"isalpha", all_ascii<letter>},
    {"isalnum", all_ascii<letter_or_digit>},
    {"removeprefix", [](Interpreter& r, const Value& v, const Arguments& a) { return without_affix(r, v, a, false); }},
    {"removesuffix", [](Interpreter& r, const Value& v, const Arguments& a) { return without_affix(r, v, a, true); }},
};
constexpr Method kDictMethods[] = {{"get", get},
                                   {"keys", keys},
                                   {"values", values},
                                   {"items", items},
                                   {"copy", copy},
                                   {"update", unchangeable},
                                   {"pop", unchangeable},
                                   {"clear", unchangeable},
                                   {"setdefault", unchangeable},
                                   {"popitem", unchangeable}};
constexpr Method kListMethods[] = {{"index", position},      {"count", occurrences},    {"append", unchangeable},
                                   {"extend", unchangeable}, {"insert", unchangeable},  {"pop", unchangeable},
                                   {"remove", unchangeable}, {"reverse", unchangeable}, {"sort", unchangeable},
                                   {"clear", unchangeable}};
constexpr Method kLoopMethods[] = {{"cycle", cycle}};

template <std::size_t n>
Builtin find_in(const Method (&methods)[n], std::string_view name) {
  const Method* found = std::find_if(methods, methods + n, [&](const Method& m) { return m.name == name; });
  return found == methods + n ? nullptr : found->call;
}

}  // namespace

Builtin find_method(const Value& object, std::string_view name) {
  if (object.text() != nullptr) return find_in(kTextMethods, name);
  if (object.dict() != nullptr) return find_in(kDictMethods, name);
  if (object.list() != nullptr) return find_in(kListMethods, name);
  if (object.loop() != nullptr) return find_in(kLoopMethods, name);
  return nullptr;
}

MarkedText stripped(const MarkedText& text, const Value* characters, bool left, bool right, Interpreter& run) {
  if (characters != nullptr && !characters->is_none() && characters->text() == nullptr)
    throw Failure("strip() takes a text of characters");
  const MarkedText* set = characters != nullptr ? characters->text() : nullptr;
  run.meter().work(text.size() / 64);
  const std::string_view bytes = text.bytes;
  const auto goes = [&](std::string_view c) {
    return set != nullptr ? set->bytes.find(c) != std::string::npos : is_space(c);
  };
  std::size_t begin = 0, end = bytes.size();
  while (left && begin < end) {
    const std::size_t length = character_bytes(bytes, begin);
    if (!goes(bytes.substr(begin, length))) break;
    begin += length;
  }
  while (right && end > begin) {
    std::size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(bytes[last]) & 0xC0u) == 0x80u) --last;
    if (!goes(bytes.substr(last, end - last))) break;
    end = last;
  }
  return text.part(begin, end);
}

MarkedText replaced(const MarkedText& text, const MarkedText& from, const MarkedText& to, std::int64_t most,
                    Interpreter& run) {
  MarkedText out;
  std::size_t at = 0;
  run.meter().work(text.size() / 16);
  for (std::int64_t n = 0; n != most; ++n) {
    std::size_t found = 0;
    if (from.empty()) {  // Python puts it before every character and at the end
      found = n == 0 ? 0 : at < text.size() ? at + character_bytes(text.bytes, at) : std::string::npos;
    } else {
      found = text.bytes.find(from.bytes, at);
    }
    if (found == std::string::npos) break;
    out.append(text.part(at, found));
    out.append(to);
    run.meter().hold(to.size());
    run.meter().release(to.size());
    run.meter().work(1);
    if (out.size() > (std::size_t{1} << 28)) throw Failure("a text grows beyond 256 MiB");
    at = found + from.size();
  }
  out.append(text.part(at, text.size()));
  return out;
}

MarkedText changed(const MarkedText& text, std::string (*change)(std::string_view)) {
  MarkedText out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.end_of_run(at);
    out.append_as(change(std::string_view(text.bytes).substr(at, end - at)), text.is_foreign(at));
    at = end;
  }
  return out;
}

std::string upper(std::string_view text) {
  std::string out;
  icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())))
      .toUpper(icu::Locale::getRoot())
      .toUTF8String(out);
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())))
      .toLower(icu::Locale::getRoot())
      .toUTF8String(out);
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return "";
  const std::size_t first = character_bytes(text, 0);
  return upper(text.substr(0, first)) + lower(text.substr(first));
}

std::string titled(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && letter(text[end])) ++end;
    if (end == at) {
      out += text[at++];
      continue;
    }
    out += capitalized(text.substr(at, end - at));
    at = end;
  }
  return out;
}

}  // namespace tailor::jinja
