#pragma once
/// A tiny model whose chat template has a place for tools, and tools to be called.

#include <filesystem>

#include "core/json.h"
#include "serve/test_template.h"

namespace tailor::test {

/// As Qwen and Hermes have it.
inline constexpr const char* kHermes =
    "{% if tools %}<|im_start|>system\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% "
    "endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{% if not loop.first or m.content %}\n{% endif %}<tool_call>\n"
    "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor "
    "%}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// weather(city, days) and stop().
inline const Json& tools() {
  static const Json kTools{
      {{"type", "function"},
       {"function",
        {{"name", "weather"},
         {"parameters",
          {{"type", "object"},
           {"properties",
            {{"city", {{"type", "string"}, {"maxLength", 8}}},
             {"days", {{"type", "integer"}, {"minimum", 1}, {"maximum", 7}}}}},
           {"required", {"city", "days"}},
           {"additionalProperties", false}}}}}},
      {{"type", "function"},
       {"function",
        {{"name", "stop"},
         {"parameters", {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}}}}}}};
  return kTools;
}

/// tiny_llama() with that template, made once a build directory.
inline std::filesystem::path model_with_tools() {
  return tiny_llama_with_template("tiny-tools", kHermes);
}

}  // namespace tailor::test
