#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "jinja/builtins.h"

namespace tailor::jinja {
namespace {

const Value& other(const Arguments& given) {
  const Value* value = given.find(0, "other");
  if (value == nullptr) throw Failure("the test needs something to compare with");
  return *value;
}

template <bool (*holds)(const Value&)>
Value test(Interpreter&, const Value& input, const Arguments&) {
  return Value(holds(input));
}

bool is_number(const Value& v) {
  double x = 0;
  return v.number(x);
}
bool is_whole(const Value& v) {
  return v.as<std::int64_t>() != nullptr;
}
bool is_sequence(const Value& v) {
  return v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr || v.is_undefined();
}

std::int64_t whole_number(const Value& input) {
  std::int64_t out = 0;
  if (!input.integer(out)) throw Failure("the test takes a whole number");
  return out;
}

template <bool (*holds)(int)>
Value ordered(Interpreter& run, const Value& input, const Arguments& given) {
  return Value(holds(compare(input, other(given), run.meter())));
}

Value same_as(Interpreter& run, const Value& input, const Arguments& given) {
  const Value& b = other(given);
  return Value(type_name(input) == type_name(b) && equal(input, b, run.meter()));
}

Value divisible_by(Interpreter&, const Value& input, const Arguments& given) {
  const std::int64_t by = whole_number(other(given));
  if (by == 0) throw Failure("division by zero");
  return Value(by == -1 || whole_number(input) % by == 0);
}

Value is_in(Interpreter& run, const Value& input, const Arguments& given) {
  const Value& where = other(given);
  if (where.text() != nullptr && input.text() != nullptr) {
    run.meter().work(where.text()->size() / 16);
    return Value(where.text()->bytes.find(input.text()->bytes) != std::string::npos);
  }
  const std::vector<Value> items = items_of(where, run.meter());
  return Value(std::any_of(items.begin(), items.end(), [&](const Value& v) { return equal(v, input, run.meter()); }));
}

/// str.isupper() and str.islower(): letters, and all of this kind.
template <std::string (*change)(std::string_view)>
Value unchanged_by(Interpreter& run, const Value& input, const Arguments&) {
  const std::string text = to_text(input, run.meter()).bytes;
  return Value(change(text) == text && upper(text) != lower(text));
}

struct Named {
  std::string_view name;
  Builtin call;
};

constexpr Named kTests[] = {
    {"defined", test<[](const Value& v) { return !v.is_undefined(); }>},
    {"undefined", test<[](const Value& v) { return v.is_undefined(); }>},
    {"none", test<[](const Value& v) { return v.is_none(); }>},
    {"string", test<[](const Value& v) { return v.text() != nullptr; }>},
    {"mapping", test<[](const Value& v) { return v.dict() != nullptr; }>},
    {"sequence", test<is_sequence>},
    {"iterable", test<is_sequence>},
    {"number", test<is_number>},
    {"integer", test<is_whole>},
    {"float", test<[](const Value& v) { return v.as<double>() != nullptr; }>},
    {"boolean", test<[](const Value& v) { return v.as<bool>() != nullptr; }>},
    {"true", test<[](const Value& v) { return v.as<bool>() != nullptr && *v.as<bool>(); }>},
    {"false", test<[](const Value& v) { return v.as<bool>() != nullptr && !*v.as<bool>(); }>},
    {"callable", test<[](const Value& v) { return v.function() != nullptr; }>},
    {"odd", test<[](const Value& v) { return whole_number(v) % 2 != 0; }>},
    {"even", test<[](const Value& v) { return whole_number(v) % 2 == 0; }>},
    {"eq", [](Interpreter& r, const Value& v, const Arguments& a) { return Value(equal(v, other(a), r.meter())); }},
    {"equalto",
     [](Interpreter& r, const Value& v, const Arguments& a) { return Value(equal(v, other(a), r.meter())); }},
    {"ne", [](Interpreter& r, const Value& v, const Arguments& a) { return Value(!equal(v, other(a), r.meter())); }},
    {"lt", ordered<[](int order) { return order < 0; }>},
    {"lessthan", ordered<[](int order) { return order < 0; }>},
    {"le", ordered<[](int order) { return order <= 0; }>},
    {"gt", ordered<[](int order) { return 0 < order; }>},
    {"greaterthan", ordered<[](int order) { return 0 < order; }>},
    {"ge", ordered<[](int order) { return 0 <= order; }>},
    {"sameas", same_as},
    {"divisibleby", divisible_by},
    {"in", is_in},
    {"upper", unchanged_by<upper>},
    {"lower", unchanged_by<lower>},
    {"filter", [](Interpreter&, const Value& v,
                  const Arguments&) { return Value(v.text() != nullptr && find_filter(v.text()->bytes) != nullptr); }},
    {"test", [](Interpreter&, const Value& v,
                const Arguments&) { return Value(v.text() != nullptr && find_test(v.text()->bytes) != nullptr); }},
};

Value raise_exception(Interpreter& run, const Value&, const Arguments& given) {
  const Value* message = given.find(0, "message");
  Failure failure(message != nullptr ? to_text(*message, run.meter()).bytes : std::string());
  failure.raised = true;
  throw failure;
}

Value strftime_now(Interpreter& run, const Value&, const Arguments& given) {
  const MarkedText* format = text_argument(given, 0, "format");
  if (format == nullptr) throw Failure("strftime_now takes a format");
  const std::time_t now = run.now();
  std::tm parts{};
  localtime_r(&now, &parts);
  char out[512];
  const std::size_t size = std::strftime(out, sizeof out, format->bytes.c_str(), &parts);
  return run.text(MarkedText::own(std::string_view(out, size)));
}

Value range(Interpreter& run, const Value&, const Arguments& given) {
  if (given.positional.empty() || given.positional.size() > 3) throw Failure("range takes one to three numbers");
  std::int64_t begin = 0, end = integer_argument(given, 0, "", 0);
  if (given.positional.size() > 1) {
    begin = end;
    end = integer_argument(given, 1, "", 0);
  }
  const std::int64_t step = integer_argument(given, 2, "", 1);
  if (step == 0) throw Failure("range: a step of 0");
  constexpr std::int64_t kMost = 100000;  // as jinja2's sandbox
  std::vector<Value> out;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(out.size()) == kMost)
      throw Failure(fmt::format("range has more than {} numbers", kMost));
    out.push_back(Value(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_list(std::move(out), false, run.meter());
}

/// dict(a=1) and dict([(k, v)]).
std::vector<std::pair<Value, Value>> pairs(Interpreter& run, const Arguments& given) {
  std::vector<std::pair<Value, Value>> out;
  if (!given.positional.empty()) {
    const Value& source = given.positional[0];
    if (source.dict() != nullptr) {
      out = source.dict()->items;
    } else {
      for (const Value& item : items_of(source, run.meter())) {
        const std::vector<Value> both = items_of(item, run.meter());
        if (both.size() != 2) throw Failure("dict takes pairs");
        out.emplace_back(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : given.named) {
    const auto same = std::find_if(out.begin(), out.end(), [&key = name](const auto& item) {
      return item.first.text() != nullptr && item.first.text()->bytes == key;
    });
    if (same != out.end())
      same->second = value;
    else
      out.emplace_back(make_text(name, run.meter()), value);
  }
  return out;
}

Value dict(Interpreter& run, const Value&, const Arguments& given) {
  return make_dict(pairs(run, given), run.meter());
}

Value name_space(Interpreter& run, const Value&, const Arguments& given) {
  auto box = std::make_shared<NamespaceBox>();
  for (const auto& [name, value] : pairs(run, given)) {
    if (name.text() == nullptr) throw Failure("a namespace's names are texts");
    box->set(name.text()->bytes, value, run.meter());
  }
  return Value(std::move(box));
}

constexpr Named kGlobals[] = {{"raise_exception", raise_exception},
                              {"strftime_now", strftime_now},
                              {"range", range},
                              {"dict", dict},
                              {"namespace", name_space}};

template <std::size_t n>
Builtin find_in(const Named (&table)[n], std::string_view name) {
  const Named* found = std::find_if(table, table + n, [&](const Named& entry) { return entry.name == name; });
  return found == table + n ? nullptr : found->call;
}

}  // namespace

Builtin find_test(std::string_view name) {
  if (name == "==") name = "eq";
  return find_in(kTests, name);
}

Builtin find_global(std::string_view name) {
  return find_in(kGlobals, name);
}

}  // namespace tailor::jinja
