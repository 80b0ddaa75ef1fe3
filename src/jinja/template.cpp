#include "jinja/template.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "jinja/interpreter.h"
#include "jinja/syntax.h"
#include "text/unicode.h"

namespace tailor {

struct JinjaTemplate::Impl {
  std::string source;
  jinja::Program program;
};

namespace {

/// As jinja2 reads it: line ends are "\n", and one at the end goes.
std::string normalized(std::string_view source) {
  std::string out;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

Error error_of(const jinja::Failure& failure, const std::string& source) {
  const std::string what = shorten(failure.what(), 400);
  if (failure.raised) return {failure.code, what, ""};
  if (failure.place > source.size()) return {failure.code, what, ""};
  const std::string_view before = std::string_view(source).substr(0, failure.place);
  return {failure.code,
          fmt::format("{} (line {}, column {} of the template)", what,
                      std::count(before.begin(), before.end(), '\n') + 1, before.size() - (before.rfind('\n') + 1) + 1),
          ""};
}

}  // namespace

JinjaTemplate::JinjaTemplate(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;
JinjaTemplate& JinjaTemplate::operator=(JinjaTemplate&&) noexcept = default;
JinjaTemplate::~JinjaTemplate() = default;

Result<JinjaTemplate> JinjaTemplate::parse(std::string_view source) {
  if (source.size() > kMostBytes) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("a template of {} bytes; the limit is {}", source.size(), kMostBytes), ""};
  }
  if (find_invalid_utf8(source) != std::string_view::npos)
    return Error{ErrorCode::kCorruptData, "the template is not UTF-8", ""};
  auto impl = std::make_unique<Impl>();
  impl->source = normalized(source);
  try {
    impl->program = jinja::parse_program(impl->source);
  } catch (const jinja::Failure& failure) {
    return error_of(failure, impl->source);
  }
  return JinjaTemplate(std::move(impl));
}

bool JinjaTemplate::mentions(std::string_view name) const {
  return impl_->program.numbers.contains(std::string(name));
}

Result<MarkedText> JinjaTemplate::render(std::span<const TemplateVariable> variables, std::time_t now,
                                         const TemplateLimits& limits) const {
  jinja::Meter meter(limits.steps, limits.bytes);
  try {
    std::vector<std::pair<int, jinja::Value>> values;
    for (const TemplateVariable& variable : variables) {
      const auto number = impl_->program.numbers.find(std::string(variable.name));
      if (number == impl_->program.numbers.end()) continue;
      values.emplace_back(number->second, jinja::from_json(*variable.value, variable.from_people, meter));
    }
    return jinja::Interpreter(impl_->program, std::move(values), meter, now).run();
  } catch (const jinja::Failure& failure) {
    return error_of(failure, impl_->source);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "too little memory to run the template", ""};
  }
}

}  // namespace tailor
