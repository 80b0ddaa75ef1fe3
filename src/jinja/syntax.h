#pragma once
/// The tree of a template. Part of jinja/template.h.

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace tailor::jinja {

enum class ExpressionKind : std::uint8_t {
  kConstant,     // constant
  kName,         // number
  kList,         // parts
  kTuple,        // parts
  kDict,         // parts: key, value, key, value, …
  kAttribute,    // parts[0].name
  kItem,         // parts[0][parts[1]]
  kSlice,        // parts[0][parts[1]:parts[2]:parts[3]]; the last three may be null
  kCall,         // parts[0](parts[1…], named)
  kFilter,       // parts[0] | name(parts[1…], named); parts[0] null: of a filter block
  kTest,         // parts[0] is name(parts[1…], named)
  kNot,          // parts[0]
  kUnary,        // name is - or +
  kBinary,       // parts[0] name parts[1]
  kConcat,       // parts joined by ~
  kCompare,      // parts[0] operators[0] parts[1] operators[1] parts[2] …
  kAnd,          // parts
  kOr,           // parts
  kConditional,  // parts[0] if parts[1] else parts[2], which may be null
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  std::size_t place = 0;  // in the source
  int depth = 1;          // of the tree below
  Value constant;
  std::string name;
  int number = -1;  // of a name, in Program::names
  std::vector<std::string> operators;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;  // arguments
};

enum class StatementKind : std::uint8_t {
  kText,        // text
  kOutput,      // expressions[0]
  kIf,          // expressions: tests; bodies: one more than tests where there is an else
  kFor,         // target; expressions[0]: what, expressions[1]: test or null; bodies[0]; bodies[1]: else
  kSet,         // target = expressions[0]
  kSetBlock,    // target; expressions[0]: a filter or null; bodies[0]
  kMacro,       // number, parameters; bodies[0]
  kCall,        // expressions[0]: a kCall; parameters of the caller; bodies[0]
  kFilter,      // expressions[0]: a kFilter; bodies[0]
  kWith,        // targets by parameters (names with values); bodies[0]
  kGeneration,  // bodies[0]
  kBreak,
  kContinue,
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

/// Where an assignment goes: one name, several, or a namespace's attribute.
struct Target {
  std::vector<int> names;  // numbers in Program::names
  bool unpacks = false;    // a tuple
  std::string attribute;   // names[0].attribute
};

struct Parameter {
  int number = -1;
  std::string name;
  ExpressionPtr standard;  // or null
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  std::size_t place = 0;
  std::string text;
  Target target;
  int number = -1;
  std::string name;
  std::vector<Parameter> parameters;
  std::vector<ExpressionPtr> expressions;
  std::vector<Body> bodies;
};

struct Program {
  Body body;
  std::vector<std::string> names;
  std::unordered_map<std::string, int> numbers;
  int loop = -1, caller = -1, varargs = -1, kwargs = -1;  // numbers of these names
};

/// Throws Failure.
Program parse_program(std::string_view source);

}  // namespace tailor::jinja
