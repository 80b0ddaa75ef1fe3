#pragma once
/// Jinja templates as models carry them for conversations: the part of Jinja2 that transformers gives them (its sandbox
/// with trim_blocks, lstrip_blocks and loop controls; raise_exception, strftime_now, tojson as json.dumps), with its
/// spelling of values. Left out: inheritance, imports, recursive loops, * in arguments, and filters for web pages.
///
/// A template comes with a model file, from anybody: a run is limited in steps, memory and depth, and can reach nothing
/// but its variables.

#include <cstdint>
#include <ctime>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/result.h"
#include "jinja/marked_text.h"

namespace tailor {

struct TemplateLimits {
  std::uint64_t steps = 20'000'000;          // a few seconds at most
  std::size_t bytes = std::size_t{1} << 29;  // of values and text at one time
};

struct TemplateVariable {
  std::string_view name;
  const Json* value = nullptr;
  bool from_people = false;  // its texts are marked (MarkedText::foreign), but those of the keys "role" and "type"
};

/// Immutable and safe to share between threads.
class JinjaTemplate {
 public:
  static constexpr std::size_t kMostBytes = std::size_t{1} << 20;  // of a source

  /// Errors: not a template (kCorruptData, with line and column), too large, nested too deeply.
  static Result<JinjaTemplate> parse(std::string_view source);

  /// Variables that are not given are undefined. `now`: what strftime_now() shows, in local time.
  /// Errors: kInvalidArgument, what the template said by raise_exception() or what went wrong, with line and column;
  /// kUnavailable: a limit.
  Result<MarkedText> render(std::span<const TemplateVariable> variables, std::time_t now,
                            const TemplateLimits& limits = {}) const;

  /// Whether the name stands in the template as a variable.
  bool mentions(std::string_view name) const;

  JinjaTemplate(JinjaTemplate&&) noexcept;
  JinjaTemplate& operator=(JinjaTemplate&&) noexcept;
  ~JinjaTemplate();

 private:
  struct Impl;
  explicit JinjaTemplate(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace tailor
