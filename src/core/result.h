#pragma once
/// Errors as values (Result) and, where a run cannot go on, as exceptions (Exception). See docs/DECISIONS.md.

#include <cassert>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace tailor {

/// What kind of thing went wrong. The command line maps these to exit codes (see exit_code_for()).
enum class ErrorCode : std::uint8_t {
  kInvalidArgument,  // the caller's or the user's input is wrong                 -> exit 2
  kNotFound,         // a file, column, model or method that was named is absent  -> exit 2
  kCorruptData,      // bytes that do not follow their format                     -> exit 2
  kIo,               // disk full, permission denied, broken pipe                 -> exit 4
  kOutOfMemory,      //                                                           -> exit 4
  kUnavailable,      // a library or program this build or machine lacks          -> exit 4
  kCancelled,        // interrupted by the user; the work can be resumed          -> exit 130
  kInternal,         // our own bug                                               -> exit 4
};

/// One failure, for a person. `message` is one sentence: what failed, where (file:line, column), what was expected and
/// what was seen. `hint` says what to do next and may be empty.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::string hint;
};

/// "message (hint)" on one line.
std::string to_string(const Error& error);

/// Exit code of the command line for an error: 2, 4 or 130.
int exit_code_for(ErrorCode code);

/// Thrown where an operation cannot go on; carries the same Error.
class Exception : public std::runtime_error {
 public:
  explicit Exception(Error error) : std::runtime_error(to_string(error)), error_(std::move(error)) {}
  const Error& error() const { return error_; }

 private:
  Error error_;
};

/// A value or an Error. Names follow std::expected (C++23); value() throws Exception.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  T& value() & {
    check();
    return std::get<0>(state_);
  }
  const T& value() const& {
    check();
    return std::get<0>(state_);
  }
  T value() && {
    check();
    return std::get<0>(std::move(state_));
  }  // by value: a loop over f().value() stays alive
  T& operator*() & {
    assert(has_value());
    return std::get<0>(state_);
  }
  const T& operator*() const& {
    assert(has_value());
    return std::get<0>(state_);
  }
  T operator*() && {
    assert(has_value());
    return std::get<0>(std::move(state_));
  }
  T* operator->() {
    assert(has_value());
    return &std::get<0>(state_);
  }
  const T* operator->() const {
    assert(has_value());
    return &std::get<0>(state_);
  }
  const Error& error() const {
    assert(!has_value());
    return std::get<1>(state_);
  }

 private:
  void check() const {
    if (!has_value()) throw Exception(std::get<1>(state_));
  }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool has_value() const { return !error_; }
  explicit operator bool() const { return has_value(); }
  void value() const {
    if (error_) throw Exception(*error_);
  }
  const Error& error() const {
    assert(error_);
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace tailor

// The language has no other way to return early with an error.
#define TAILOR_CONCAT_IMPL(a, b) a##b
#define TAILOR_CONCAT(a, b) TAILOR_CONCAT_IMPL(a, b)
#define TAILOR_TRY(lhs, expr) TAILOR_TRY_IMPL(TAILOR_CONCAT(tailor_result_, __LINE__), lhs, expr)
#define TAILOR_TRY_IMPL(tmp, lhs, expr)     \
  auto tmp = (expr);                        \
  if (!tmp.has_value()) return tmp.error(); \
  lhs = std::move(*tmp)
#define TAILOR_CHECK(expr)                                        \
  do {                                                            \
    auto tailor_status = (expr);                                  \
    if (!tailor_status.has_value()) return tailor_status.error(); \
  } while (false)
