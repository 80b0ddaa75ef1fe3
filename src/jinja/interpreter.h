#pragma once
/// Runs a template's tree. Part of jinja/template.h.

#include <cstdint>
#include <ctime>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/syntax.h"
#include "jinja/value.h"

namespace tailor::jinja {

/// Variables of one block; those of the blocks around it are found through `around`.
struct Scope {
  std::vector<std::pair<int, Value>> variables;
  std::shared_ptr<Scope> around;
};

/// One run. Failures leave as exceptions.
class Interpreter {
 public:
  /// `variables` by number of name. All arguments must outlive the run; values do not outlive the interpreter's meter.
  Interpreter(const Program& program, std::vector<std::pair<int, Value>> variables, Meter& meter, std::time_t now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  MarkedText run();

  Meter& meter() { return meter_; }
  std::time_t now() const { return now_; }
  Value text(MarkedText value) { return make_text(std::move(value), meter_); }
  Value attribute(const Value& object, std::string_view name);  // object.name
  Value item(const Value& object, const Value& key);            // object[key]
  Value apply_filter(std::string_view name, const Value& input, const Arguments& arguments);
  bool apply_test(std::string_view name, const Value& input, const Arguments& arguments);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;

  Flow execute(const Body& body, const ScopePtr& scope);
  Flow execute(const Statement& statement, const ScopePtr& scope);
  Flow run_loop(const Statement& statement, const ScopePtr& scope);
  void assign(const Target& target, const Value& value, const ScopePtr& scope);
  void emit(const MarkedText& text);
  /// What `body` prints, in a scope of its own.
  Value captured(const Body& body, const ScopePtr& around);
  Value make_macro(const std::string& name, const std::vector<Parameter>& parameters, const Body& body,
                   const ScopePtr& scope);

  Value evaluate(const Expression& e, const ScopePtr& scope);
  Value evaluate_at(const Expression& e, const ScopePtr& scope);
  Value binary(const Expression& e, const ScopePtr& scope);
  bool compares(const std::string& op, const Value& a, const Value& b);
  Value slice(const Expression& e, const ScopePtr& scope);
  Value call(const Expression& e, const ScopePtr& scope, const Value* caller = nullptr);
  Arguments arguments(const Expression& e, const ScopePtr& scope);
  Value look_up(const Expression& e, const ScopePtr& scope);
  ScopePtr inner(const ScopePtr& around);

  const Program& program_;
  Meter& meter_;
  std::time_t now_;
  ScopePtr globals_;
  std::vector<ScopePtr> closed_over_;  // hold functions that hold them: taken apart at the end
  MarkedText* out_ = nullptr;
  int depth_ = 0;
};

}  // namespace tailor::jinja
