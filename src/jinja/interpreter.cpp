#include "jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "jinja/builtins.h"
#include "text/unicode.h"

namespace tailor::jinja {
namespace {

constexpr int kDeepestRun = 1200;  // evaluations within one another: macros may call themselves

Failure undefined(const Value& value) {
  return Failure(value.as<Undefined>()->what);
}

/// Counts how deep evaluation is.
struct Deeper {
  explicit Deeper(int& depth) : depth_(depth) {
    if (++depth_ > kDeepestRun) {
      --depth_;
      throw Failure("macros call each other too deeply", ErrorCode::kUnavailable);
    }
  }
  ~Deeper() { --depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
  int& depth_;
};

std::int64_t whole(std::int64_t a, std::int64_t b, bool (*operation)(std::int64_t, std::int64_t, std::int64_t*)) {
  std::int64_t out = 0;
  if (operation(a, b, &out)) throw Failure("a number grows too large");
  return out;
}

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  std::int64_t i = 0, j = 0;
  double x = 0, y = 0;
  a.number(x);
  b.number(y);
  if (a.integer(i) && b.integer(j)) {
    if (op == "+") return Value(whole(i, j, [](auto p, auto q, auto* r) { return __builtin_add_overflow(p, q, r); }));
    if (op == "-") return Value(whole(i, j, [](auto p, auto q, auto* r) { return __builtin_sub_overflow(p, q, r); }));
    if (op == "*") return Value(whole(i, j, [](auto p, auto q, auto* r) { return __builtin_mul_overflow(p, q, r); }));
    if (op == "//" || op == "%") {
      if (j == 0) throw Failure("division by zero");
      if (j == -1)
        return op == "%" ? Value(std::int64_t{0})
                         : Value(whole(0, i, [](auto p, auto q, auto* r) { return __builtin_sub_overflow(p, q, r); }));
      const std::int64_t remainder = ((i % j) + j) % j;  // has the sign of j
      return op == "%" ? Value(remainder) : Value((i - remainder) / j);
    }
    if (op == "**" && j >= 0) {
      if (i == 0 || i == 1) return Value(j == 0 ? std::int64_t{1} : i);
      if (i == -1) return Value(std::int64_t{j % 2 == 0 ? 1 : -1});
      std::int64_t power = 1;
      for (std::int64_t n = 0; n < j; ++n)  // overflows, and throws, within 63 rounds
        power = whole(power, i, [](auto p, auto q, auto* r) { return __builtin_mul_overflow(p, q, r); });
      return Value(power);
    }
  }
  if (op == "+") return Value(x + y);
  if (op == "-") return Value(x - y);
  if (op == "*") return Value(x * y);
  if (op == "**") return Value(std::pow(x, y));
  if (y == 0) throw Failure("division by zero");
  if (op == "/") return Value(x / y);
  const double quotient = std::floor(x / y);
  return op == "//" ? Value(quotient) : Value(x - quotient * y);
}

/// Where the code points of a text begin, and its end.
std::vector<std::size_t> code_points(std::string_view text) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0u) != 0x80u) out.push_back(i);
  }
  out.push_back(text.size());
  return out;
}

}  // namespace

Interpreter::Interpreter(const Program& program, std::vector<std::pair<int, Value>> variables, Meter& meter,
                         std::time_t now)
    : program_(program), meter_(meter), now_(now), globals_(std::make_shared<Scope>()) {
  globals_->variables = std::move(variables);
}

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : closed_over_) {
    const auto variables = std::move(scope->variables);
    scope->variables.clear();
  }
}

MarkedText Interpreter::run() {
  MarkedText out;
  out_ = &out;
  execute(program_.body, globals_);
  return out;
}

Interpreter::ScopePtr Interpreter::inner(const ScopePtr& around) {
  meter_.work(2);
  auto scope = std::make_shared<Scope>();
  scope->around = around;
  return scope;
}

// --- statements

void Interpreter::emit(const MarkedText& text) {
  meter_.hold(text.size());
  out_->append(text);
}

Value Interpreter::captured(const Body& body, const ScopePtr& around) {
  MarkedText text;
  MarkedText* const before = std::exchange(out_, &text);
  try {
    execute(body, inner(around));
  } catch (...) {
    out_ = before;
    throw;
  }
  out_ = before;
  meter_.release(text.size());
  return make_text(std::move(text), meter_);
}

Interpreter::Flow Interpreter::execute(const Body& body, const ScopePtr& scope) {
  for (const auto& statement : body) {
    if (const Flow flow = execute(*statement, scope); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, const ScopePtr& scope) {
  const Deeper deeper(depth_);
  meter_.work(1);
  const auto& e = statement.expressions;
  switch (statement.kind) {
    case StatementKind::kText:
      meter_.hold(statement.text.size());
      out_->append(std::string_view(statement.text));
      break;
    case StatementKind::kOutput: {
      const Value value = evaluate(*e[0], scope);
      if (const MarkedText* text = value.text())
        emit(*text);
      else
        emit(to_text(value, meter_));
      break;
    }
    case StatementKind::kIf:
      for (std::size_t i = 0; i < e.size(); ++i) {
        if (is_true(evaluate(*e[i], scope))) return execute(statement.bodies[i], scope);
      }
      if (statement.bodies.size() > e.size()) return execute(statement.bodies.back(), scope);
      break;
    case StatementKind::kFor:
      return run_loop(statement, scope);
    case StatementKind::kSet:
      assign(statement.target, evaluate(*e[0], scope), scope);
      break;
    case StatementKind::kSetBlock: {
      Value value = captured(statement.bodies[0], scope);
      if (e[0] != nullptr) {
        const ScopePtr own = inner(scope);
        own->variables.emplace_back(-1, value);
        value = evaluate(*e[0], own);
      }
      assign(statement.target, value, scope);
      break;
    }
    case StatementKind::kMacro: {
      Target target;
      target.names.push_back(statement.number);
      assign(target, make_macro(statement.name, statement.parameters, statement.bodies[0], scope), scope);
      break;
    }
    case StatementKind::kCall: {
      const Value caller = make_macro("caller", statement.parameters, statement.bodies[0], scope);
      emit(to_text(call(*e[0], scope, &caller), meter_));
      break;
    }
    case StatementKind::kFilter: {
      const ScopePtr own = inner(scope);
      own->variables.emplace_back(-1, captured(statement.bodies[0], scope));
      emit(to_text(evaluate(*e[0], own), meter_));
      break;
    }
    case StatementKind::kWith: {
      const ScopePtr own = inner(scope);
      for (const Parameter& p : statement.parameters)
        own->variables.emplace_back(p.number, evaluate(*p.standard, scope));
      return execute(statement.bodies[0], own);
    }
    case StatementKind::kGeneration:
      return execute(statement.bodies[0], inner(scope));
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement, const ScopePtr& scope) {
  auto items = std::make_shared<std::vector<Value>>(items_of(evaluate(*statement.expressions[0], scope), meter_));
  if (const auto& test = statement.expressions[1]; test != nullptr) {
    std::vector<Value> kept;
    for (const Value& item : *items) {
      const ScopePtr own = inner(scope);
      assign(statement.target, item, own);
      if (is_true(evaluate(*test, own))) kept.push_back(item);
    }
    *items = std::move(kept);
  }
  for (std::size_t i = 0; i < items->size(); ++i) {
    const ScopePtr own = inner(scope);
    auto loop = std::make_shared<LoopBox>();
    loop->items = items;
    loop->index = i;
    own->variables.emplace_back(program_.loop, Value(std::shared_ptr<const LoopBox>(std::move(loop))));
    assign(statement.target, (*items)[i], own);
    if (execute(statement.bodies[0], own) == Flow::kBreak) break;
  }
  if (items->empty() && statement.bodies.size() > 1) return execute(statement.bodies[1], scope);
  return Flow::kOn;
}

void Interpreter::assign(const Target& target, const Value& value, const ScopePtr& scope) {
  const auto set = [&](int name, const Value& to) {
    for (auto& [known, held] : scope->variables) {
      if (known == name) {
        held = to;
        return;
      }
    }
    meter_.work(1);
    scope->variables.emplace_back(name, to);
  };
  if (!target.attribute.empty()) {
    Expression name;
    name.number = target.names[0];
    name.name = program_.names[static_cast<std::size_t>(name.number)];
    NamespaceBox* held = look_up(name, scope).name_space();
    if (held == nullptr) throw Failure(fmt::format("'{}' is no namespace: its attributes cannot be set", name.name));
    held->set(target.attribute, value, meter_);
  } else if (target.unpacks) {
    const std::vector<Value> items = items_of(value, meter_);
    if (items.size() != target.names.size())
      throw Failure(fmt::format("{} values cannot be given to {} names", items.size(), target.names.size()));
    for (std::size_t i = 0; i < items.size(); ++i) set(target.names[i], items[i]);
  } else {
    set(target.names[0], value);
  }
}

Value Interpreter::make_macro(const std::string& name, const std::vector<Parameter>& parameters, const Body& body,
                              const ScopePtr& scope) {
  closed_over_.push_back(scope);
  auto function = std::make_shared<FunctionBox>();
  function->name = name;
  function->call = [&parameters, &body, scope, name](Interpreter& run, const Arguments& given) {
    const ScopePtr own = run.inner(scope);
    std::vector<Value> more(
        given.positional.begin() + static_cast<std::ptrdiff_t>(std::min(parameters.size(), given.positional.size())),
        given.positional.end());
    std::vector<std::pair<Value, Value>> others;
    for (const auto& [key, value] : given.named) {
      const bool known =
          std::any_of(parameters.begin(), parameters.end(), [&key = key](const Parameter& p) { return p.name == key; });
      if (key == "caller")
        own->variables.emplace_back(run.program_.caller, value);
      else if (!known)
        others.emplace_back(make_text(key, run.meter_), value);
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& p = parameters[i];
      const Value* value = given.find(i, p.name);
      own->variables.emplace_back(
          p.number, value != nullptr        ? *value
                    : p.standard != nullptr ? run.evaluate(*p.standard, own)
                                            : Value(Undefined{fmt::format("parameter '{}' was not provided", p.name)}));
    }
    own->variables.emplace_back(run.program_.varargs, make_list(std::move(more), true, run.meter_));
    own->variables.emplace_back(run.program_.kwargs, make_dict(std::move(others), run.meter_));
    return run.captured(body, own);
  };
  return Value(std::shared_ptr<const FunctionBox>(std::move(function)));
}

// --- expressions

Value Interpreter::evaluate(const Expression& e, const ScopePtr& scope) {
  try {
    return evaluate_at(e, scope);
  } catch (Failure& failure) {
    if (failure.place == std::string::npos) failure.place = e.place;
    throw;
  }
}

Value Interpreter::look_up(const Expression& e, const ScopePtr& scope) {
  for (const Scope* s = scope.get(); s != nullptr; s = s->around.get()) {
    for (const auto& [name, value] : s->variables) {
      if (name == e.number) return value;
    }
  }
  if (const Builtin global = find_global(e.name)) {
    auto function = std::make_shared<FunctionBox>();
    function->name = e.name;
    function->call = [global](Interpreter& run, const Arguments& given) { return global(run, Value(), given); };
    return Value(std::shared_ptr<const FunctionBox>(std::move(function)));
  }
  return Value(Undefined{fmt::format("'{}' is undefined", e.name)});
}

Value Interpreter::evaluate_at(const Expression& e, const ScopePtr& scope) {
  const Deeper deeper(depth_);
  meter_.work(1);
  const auto part = [&](std::size_t i) { return evaluate(*e.parts[i], scope); };
  const auto all_parts = [&] {
    std::vector<Value> items;
    for (const auto& p : e.parts) items.push_back(evaluate(*p, scope));
    return items;
  };
  switch (e.kind) {
    case ExpressionKind::kConstant:
      return e.constant;
    case ExpressionKind::kName:
      return look_up(e, scope);
    case ExpressionKind::kList:
      return make_list(all_parts(), false, meter_);
    case ExpressionKind::kTuple:
      return make_list(all_parts(), true, meter_);
    case ExpressionKind::kDict: {
      std::vector<std::pair<Value, Value>> items;
      for (std::size_t i = 0; i + 1 < e.parts.size(); i += 2) {
        Value key = part(i), value = part(i + 1);
        const auto same =
            std::find_if(items.begin(), items.end(), [&](const auto& item) { return equal(item.first, key, meter_); });
        if (same != items.end())
          same->second = std::move(value);
        else
          items.emplace_back(std::move(key), std::move(value));
      }
      return make_dict(std::move(items), meter_);
    }
    case ExpressionKind::kAttribute: {
      const Value object = part(0);
      return attribute(object, e.name);
    }
    case ExpressionKind::kItem: {
      const Value object = part(0), key = part(1);
      return item(object, key);
    }
    case ExpressionKind::kSlice:
      return slice(e, scope);
    case ExpressionKind::kCall:
      return call(e, scope);
    case ExpressionKind::kFilter: {
      const Value input = e.parts[0] != nullptr ? part(0) : scope->variables.front().second;
      return apply_filter(e.name, input, arguments(e, scope));
    }
    case ExpressionKind::kTest: {
      const Value input = part(0);
      return Value(apply_test(e.name, input, arguments(e, scope)));
    }
    case ExpressionKind::kNot:
      return Value(!is_true(part(0)));
    case ExpressionKind::kUnary: {
      const Value value = part(0);
      if (value.is_undefined()) throw undefined(value);
      double x = 0;
      if (!value.number(x))
        throw Failure(fmt::format("{} cannot stand before a value of type {}", e.name, type_name(value)));
      return e.name == "-" ? arithmetic("-", Value(std::int64_t{0}), value) : value;
    }
    case ExpressionKind::kBinary:
      return binary(e, scope);
    case ExpressionKind::kConcat: {
      MarkedText out;
      for (std::size_t i = 0; i < e.parts.size(); ++i) {
        const Value value = part(i);
        if (const MarkedText* text = value.text())
          out.append(*text);
        else
          out.append(to_text(value, meter_));
      }
      return text(std::move(out));
    }
    case ExpressionKind::kCompare: {
      Value left = part(0);
      for (std::size_t i = 0; i < e.operators.size(); ++i) {
        Value right = part(i + 1);
        if (!compares(e.operators[i], left, right)) return Value(false);
        left = std::move(right);
      }
      return Value(true);
    }
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr: {
      const bool stops_at = e.kind == ExpressionKind::kOr;
      Value value;
      for (std::size_t i = 0; i < e.parts.size(); ++i) {
        value = part(i);
        if (is_true(value) == stops_at) break;
      }
      return value;
    }
    case ExpressionKind::kConditional:
      if (is_true(part(1))) return part(0);
      if (e.parts[2] != nullptr) return part(2);
      return Value(Undefined{"an 'if' without 'else' is undefined here"});
  }
  return Value();
}

Value Interpreter::attribute(const Value& object, std::string_view name) {
  if (object.is_undefined()) throw undefined(object);
  if (name.starts_with('_')) return Value(Undefined{fmt::format("access to '{}' is not allowed", name)});
  if (const LoopBox* loop = object.loop()) {
    const auto size = static_cast<std::int64_t>(loop->items->size());
    const auto index = static_cast<std::int64_t>(loop->index);
    if (name == "index") return Value(index + 1);
    if (name == "index0") return Value(index);
    if (name == "revindex") return Value(size - index);
    if (name == "revindex0") return Value(size - index - 1);
    if (name == "first") return Value(index == 0);
    if (name == "last") return Value(index + 1 == size);
    if (name == "length") return Value(size);
    if (name == "depth") return Value(std::int64_t{1});
    if (name == "depth0") return Value(std::int64_t{0});
    if (name == "previtem" && index > 0) return (*loop->items)[loop->index - 1];
    if (name == "nextitem" && index + 1 < size) return (*loop->items)[loop->index + 1];
  }
  if (const NamespaceBox* held = object.name_space()) {
    if (const Value* found = held->find(name)) return *found;
  }
  if (const Builtin method = find_method(object, name)) {
    auto function = std::make_shared<FunctionBox>();
    function->name = name;
    function->call = [method, object](Interpreter& run, const Arguments& given) { return method(run, object, given); };
    return Value(std::shared_ptr<const FunctionBox>(std::move(function)));
  }
  if (const DictBox* dict = object.dict()) {
    meter_.work(dict->items.size() / 8);
    if (const Value* found = dict->find(name)) return *found;
  }
  return Value(Undefined{fmt::format("a value of type {} has no attribute '{}'", type_name(object), name)});
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) throw undefined(object);
  if (const DictBox* dict = object.dict()) {
    meter_.work(dict->items.size() / 8);
    if (const Value* found = dict->find(key)) return *found;
  }
  std::int64_t index = 0;
  if (key.integer(index)) {
    const auto place = [&](std::size_t size) -> std::int64_t {
      const std::int64_t at = index < 0 ? index + static_cast<std::int64_t>(size) : index;
      return at >= 0 && at < static_cast<std::int64_t>(size) ? at : -1;
    };
    if (const ListBox* list = object.list()) {
      if (const std::int64_t at = place(list->items.size()); at >= 0) return list->items[static_cast<std::size_t>(at)];
    } else if (const MarkedText* text = object.text()) {
      meter_.work(text->size() / 16);
      const std::vector<std::size_t> begins = code_points(text->bytes);
      if (const std::int64_t at = place(begins.size() - 1); at >= 0)
        return make_text(text->part(begins[static_cast<std::size_t>(at)], begins[static_cast<std::size_t>(at) + 1]),
                         meter_);
    }
  } else if (const MarkedText* name = key.text()) {
    if (object.dict() == nullptr || find_method(object, name->bytes) != nullptr) return attribute(object, name->bytes);
  }
  return Value(Undefined{fmt::format("a value of type {} has no item {}", type_name(object), [&] {
    MarkedText shown;
    append_repr(key, shown, meter_);
    return shorten(shown.bytes, 40);
  }())});
}

bool Interpreter::compares(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(a, b, meter_);
  if (op == "!=") return !equal(a, b, meter_);
  if (op == "in" || op == "not in") {
    bool found = false;
    if (const MarkedText* text = b.text()) {
      if (a.is_undefined()) throw undefined(a);
      if (a.text() == nullptr)
        throw Failure(fmt::format("a value of type {} cannot be looked for in a text", type_name(a)));
      meter_.work(text->size() / 16);
      found = text->bytes.find(a.text()->bytes) != std::string::npos;
    } else if (const ListBox* list = b.list()) {
      found = std::any_of(list->items.begin(), list->items.end(), [&](const Value& v) { return equal(a, v, meter_); });
    } else if (const DictBox* dict = b.dict()) {
      meter_.work(dict->items.size());
      found = dict->find(a) != nullptr;
    } else if (!b.is_undefined()) {
      throw Failure(fmt::format("nothing can be looked for in a value of type {}", type_name(b)));
    }
    return found == (op == "in");
  }
  if (a.is_undefined()) throw undefined(a);
  if (b.is_undefined()) throw undefined(b);
  const int order = compare(a, b, meter_);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

Value Interpreter::binary(const Expression& e, const ScopePtr& scope) {
  const Value a = evaluate(*e.parts[0], scope), b = evaluate(*e.parts[1], scope);
  if (a.is_undefined()) throw undefined(a);
  if (b.is_undefined()) throw undefined(b);
  double x = 0, y = 0;
  if (a.number(x) && b.number(y)) return arithmetic(e.name, a, b);
  if (e.name == "+") {
    if (a.text() != nullptr && b.text() != nullptr) {
      MarkedText out = *a.text();
      out.append(*b.text());
      return text(std::move(out));
    }
    if (const ListBox* one = a.list(), *other = b.list();
        one != nullptr && other != nullptr && one->tuple == other->tuple) {
      std::vector<Value> items = one->items;
      items.insert(items.end(), other->items.begin(), other->items.end());
      return make_list(std::move(items), one->tuple, meter_);
    }
  }
  if (e.name == "*") {
    const Value& repeated = b.text() != nullptr || b.list() != nullptr ? b : a;
    std::int64_t times = 0;
    if ((&repeated == &a ? b : a).integer(times) && (repeated.text() != nullptr || repeated.list() != nullptr)) {
      times = std::max<std::int64_t>(times, 0);
      const std::size_t size =
          repeated.text() != nullptr ? repeated.text()->size() : repeated.list()->items.size() * sizeof(Value);
      // Asked for before it is made.
      if (size > 0 && static_cast<std::uint64_t>(times) > (std::uint64_t{1} << 32) / size)
        throw Failure("a text grows too large");
      meter_.hold(size * static_cast<std::size_t>(times));
      meter_.release(size * static_cast<std::size_t>(times));
      MarkedText out;
      std::vector<Value> items;
      for (std::int64_t i = 0; i < times && size > 0; ++i) {
        if (repeated.text() != nullptr)
          out.append(*repeated.text());
        else
          items.insert(items.end(), repeated.list()->items.begin(), repeated.list()->items.end());
      }
      return repeated.text() != nullptr ? text(std::move(out))
                                        : make_list(std::move(items), repeated.list()->tuple, meter_);
    }
  }
  if (e.name == "%" && a.text() != nullptr) {
    Arguments given;
    if (b.list() != nullptr && b.list()->tuple)
      given.positional = b.list()->items;
    else
      given.positional.push_back(b);
    return apply_filter("format", a, given);
  }
  throw Failure(fmt::format("values of type {} and {} cannot be combined by {}", type_name(a), type_name(b), e.name));
}

Value Interpreter::slice(const Expression& e, const ScopePtr& scope) {
  const Value object = evaluate(*e.parts[0], scope);
  if (object.is_undefined()) throw undefined(object);
  const auto bound = [&](std::size_t i) -> std::optional<std::int64_t> {
    if (e.parts[i] == nullptr) return std::nullopt;
    const Value value = evaluate(*e.parts[i], scope);
    std::int64_t out = 0;
    if (value.is_none()) return std::nullopt;
    if (!value.integer(out)) throw Failure("a slice's bounds must be whole numbers");
    return out;
  };
  const auto begin = bound(1), end = bound(2);
  const std::int64_t step = bound(3).value_or(1);
  if (step == 0) throw Failure("a slice's step must not be 0");
  const ListBox* list = object.list();
  const MarkedText* source = object.text();
  if (list == nullptr && source == nullptr)
    throw Failure(fmt::format("a value of type {} cannot be sliced", type_name(object)));
  std::vector<std::size_t> begins;
  if (source != nullptr) {
    meter_.work(source->size() / 16);
    begins = code_points(source->bytes);
  }
  const auto size = static_cast<std::int64_t>(list != nullptr ? list->items.size() : begins.size() - 1);
  const auto clamped = [&](std::int64_t at) {
    if (at < 0) at = std::max<std::int64_t>(at, -size) + size + (at < -size ? -1 : 0);
    return std::clamp<std::int64_t>(at, step > 0 ? 0 : -1, step > 0 ? size : size - 1);
  };
  const std::int64_t from = begin ? clamped(*begin) : step > 0 ? 0 : size - 1;
  const std::int64_t to = end ? clamped(*end) : step > 0 ? size : -1;
  if (source != nullptr && step == 1) {
    if (from >= to) return text({});
    return text(source->part(begins[static_cast<std::size_t>(from)], begins[static_cast<std::size_t>(to)]));
  }
  MarkedText out;
  std::vector<Value> items;
  const std::int64_t stride = std::clamp<std::int64_t>(step, -size - 1, size + 1);
  for (std::int64_t i = from; step > 0 ? i < to : i > to; i += stride) {
    const auto at = static_cast<std::size_t>(i);
    meter_.work(1);
    if (list != nullptr)
      items.push_back(list->items[at]);
    else
      out.append(source->part(begins[at], begins[at + 1]));
  }
  return list != nullptr ? make_list(std::move(items), list->tuple, meter_) : text(std::move(out));
}

Arguments Interpreter::arguments(const Expression& e, const ScopePtr& scope) {
  Arguments out;
  for (std::size_t i = 1; i < e.parts.size(); ++i) out.positional.push_back(evaluate(*e.parts[i], scope));
  for (const auto& [name, value] : e.named) out.named.emplace_back(name, evaluate(*value, scope));
  return out;
}

Value Interpreter::call(const Expression& e, const ScopePtr& scope, const Value* caller) {
  const Expression& callee = *e.parts[0];
  if (callee.kind == ExpressionKind::kAttribute) {  // without a function object between
    const Value object = evaluate(*callee.parts[0], scope);
    if (object.name_space() == nullptr) {
      if (const Builtin method = find_method(object, callee.name)) return method(*this, object, arguments(e, scope));
    }
    const Value function = attribute(object, callee.name);
    if (function.is_undefined()) throw undefined(function);
    if (function.function() == nullptr) throw Failure(fmt::format("'{}' is not a function", callee.name));
    return function.function()->call(*this, arguments(e, scope));
  }
  const Value function = evaluate(callee, scope);
  if (function.is_undefined()) throw undefined(function);
  if (function.function() == nullptr)
    throw Failure(fmt::format("a value of type {} cannot be called", type_name(function)));
  Arguments given = arguments(e, scope);
  if (caller != nullptr) given.named.emplace_back("caller", *caller);
  return function.function()->call(*this, given);
}

Value Interpreter::apply_filter(std::string_view name, const Value& input, const Arguments& given) {
  const Builtin filter = find_filter(name);
  if (filter == nullptr) throw Failure(fmt::format("there is no filter '{}'", name));
  return filter(*this, input, given);
}

bool Interpreter::apply_test(std::string_view name, const Value& input, const Arguments& given) {
  const Builtin test = find_test(name);
  if (test == nullptr) throw Failure(fmt::format("there is no test '{}'", name));
  return is_true(test(*this, input, given));
}

}  // namespace tailor::jinja
