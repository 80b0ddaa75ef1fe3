#pragma once
/// Filters, tests, methods and global functions of Jinja2 that chat templates use. Part of jinja/template.h.

#include <string_view>

#include "jinja/interpreter.h"

namespace tailor::jinja {

/// `input`: what a filter or test is applied to, a method's object; of a global function: nothing.
using Builtin = Value (*)(Interpreter&, const Value& input, const Arguments&);

// nullptr: there is none of that name.
Builtin find_filter(std::string_view name);
Builtin find_test(std::string_view name);  // gives a truth value
Builtin find_method(const Value& object, std::string_view name);
Builtin find_global(std::string_view name);

// Shared by filters and methods.
MarkedText stripped(const MarkedText& text, const Value* characters, bool left, bool right, Interpreter& run);
MarkedText replaced(const MarkedText& text, const MarkedText& from, const MarkedText& to, std::int64_t most,
                    Interpreter& run);
/// Each run of one origin through `change`.
MarkedText changed(const MarkedText& text, std::string (*change)(std::string_view));
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalized(std::string_view text);
std::string titled(std::string_view text);

/// The argument as a text, whole number or truth value; `standard` where it is not given, Failure where it is another.
const MarkedText* text_argument(const Arguments& arguments, std::size_t place, std::string_view name);
std::int64_t integer_argument(const Arguments& arguments, std::size_t place, std::string_view name,
                              std::int64_t standard);
bool truth_argument(const Arguments& arguments, std::size_t place, std::string_view name, bool standard);

}  // namespace tailor::jinja
