#pragma once
/// Values of a template while it runs, with Python's rules for truth, equality, order and spelling. Part of
/// jinja/template.h.

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "jinja/marked_text.h"

namespace tailor::jinja {

/// Leaves the engine as an Error of JinjaTemplate, never further.
struct Failure : std::runtime_error {
  explicit Failure(const std::string& what, ErrorCode failure = ErrorCode::kInvalidArgument)
      : std::runtime_error(what), code(failure) {}
  ErrorCode code;
  bool raised = false;                    // by the template's own raise_exception()
  std::size_t place = std::string::npos;  // in the source
};

/// Counts what a run may use; throws Failure where it is too much.
class Meter {
 public:
  Meter(std::uint64_t most_work, std::size_t most_bytes) : work_left_(most_work), bytes_left_(most_bytes) {}
  void work(std::uint64_t units) {
    if (units > work_left_) too_slow();
    work_left_ -= units;
  }
  void hold(std::size_t bytes) {
    if (bytes > bytes_left_) too_large();
    bytes_left_ -= bytes;
    work(bytes / 64);
  }
  void release(std::size_t bytes) { bytes_left_ += bytes; }

 private:
  [[noreturn]] static void too_slow();
  [[noreturn]] static void too_large();
  std::uint64_t work_left_;
  std::size_t bytes_left_;
};

class Value;
class Interpreter;
struct Arguments;

struct Undefined {
  std::string what;  // "'x' is undefined"
};
struct None {};

/// Boxes are made by the functions below and give back what they hold of the meter.
struct TextBox {
  MarkedText text;
  Meter* meter = nullptr;  // nullptr: a constant of the template
  ~TextBox() {
    if (meter != nullptr) meter->release(text.size() + sizeof(TextBox));
  }
};
struct ListBox;
struct DictBox;
struct NamespaceBox;
struct LoopBox;
struct FunctionBox;

/// Lists and dictionaries cannot be changed by a template (as in transformers' sandbox), so values hold no cycles but
/// by namespaces, which NamespaceBox::set() prevents.
class Value {
 public:
  using State =
      std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const TextBox>,
                   std::shared_ptr<const ListBox>, std::shared_ptr<const DictBox>, std::shared_ptr<NamespaceBox>,
                   std::shared_ptr<const LoopBox>, std::shared_ptr<const FunctionBox>>;
  Value() : state_(None{}) {}
  template <typename T>
  explicit Value(T state) : state_(std::move(state)) {}

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&state_);
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  const MarkedText* text() const {
    const auto* box = as<std::shared_ptr<const TextBox>>();
    return box == nullptr ? nullptr : &(*box)->text;
  }
  const ListBox* list() const { return pointee<const ListBox>(); }
  const DictBox* dict() const { return pointee<const DictBox>(); }
  NamespaceBox* name_space() const { return pointee<NamespaceBox>(); }
  const LoopBox* loop() const { return pointee<const LoopBox>(); }
  const FunctionBox* function() const { return pointee<const FunctionBox>(); }
  /// A whole number or a truth value (1, 0).
  bool integer(std::int64_t& out) const;
  bool number(double& out) const;

 private:
  template <typename T>
  T* pointee() const {
    const auto* box = std::get_if<std::shared_ptr<T>>(&state_);
    return box == nullptr ? nullptr : box->get();
  }
  State state_;
};

struct ListBox {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;  // of nesting
  Meter* meter = nullptr;
  ~ListBox() {
    if (meter != nullptr) meter->release(items.size() * sizeof(Value) + sizeof(ListBox));
  }
};
struct DictBox {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;
  Meter* meter = nullptr;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  ~DictBox() {
    if (meter != nullptr) meter->release(items.size() * 2 * sizeof(Value) + sizeof(DictBox));
  }
};
struct NamespaceBox {
  std::vector<std::pair<std::string, Value>> items;
  const Value* find(std::string_view name) const;
  void set(const std::string& name, const Value& value, Meter& meter);
};
struct LoopBox {
  std::shared_ptr<const std::vector<Value>> items;
  std::size_t index = 0;
};
struct FunctionBox {
  std::string name;
  std::function<Value(Interpreter&, const Arguments&)> call;
};

/// What a function, filter or test is given.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  /// By place or name; nullptr: not given.
  const Value* find(std::size_t place, std::string_view name) const;
};

constexpr int kMostNesting = 100;  // of lists and dictionaries

Value make_text(MarkedText text, Meter& meter);
Value make_text(std::string_view own, Meter& meter);
Value make_list(std::vector<Value> items, bool tuple, Meter& meter);
Value make_dict(std::vector<std::pair<Value, Value>> items, Meter& meter);
/// `foreign`: texts are marked as people's, but those of the keys "role" and "type".
Value from_json(const Json& json, bool foreign, Meter& meter);

bool is_true(const Value& value);
bool equal(const Value& a, const Value& b, Meter& meter);
/// Negative, 0, positive; Failure where Python knows no order.
int compare(const Value& a, const Value& b, Meter& meter);
/// Python's name of the type: "str", "dict", …
std::string_view type_name(const Value& value);
/// str() and repr().
MarkedText to_text(const Value& value, Meter& meter);
void append_repr(const Value& value, MarkedText& out, Meter& meter);
std::string float_repr(double value);

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  int indent = -1;  // -1: one line
  std::string item_separator = ", ", key_separator = ": ";
};
/// json.dumps().
MarkedText to_json_text(const Value& value, const JsonStyle& style, Meter& meter);

/// What a for loop goes through; Failure where Python cannot.
std::vector<Value> items_of(const Value& value, Meter& meter);
/// len(); Failure where there is none.
std::size_t length_of(const Value& value);

}  // namespace tailor::jinja
