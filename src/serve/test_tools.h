#pragma once
/// A tiny model whose chat template has a place for tools, and tools to be called.

#include <filesystem>

#include "core/json.h"
#include "infer/test_models.h"
#include "model/gguf_writer.h"

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
  const std::filesystem::path out = testing::test_cache() / "tiny-tools.gguf";
  if (std::filesystem::exists(out)) return out;
  const GgufFile base = GgufFile::open(testing::tiny_llama()).value();
  GgufWriter writer;
  for (const auto& [key, value] : base.values()) writer.set(key, value);
  writer.set("tokenizer.chat_template", GgufValue::string(kHermes));
  for (const GgufTensor& tensor : base.tensors()) {
    writer.add(tensor.name, TensorType::kF32, tensor.shape, [&tensor] { return to_f32(tensor); });
  }
  writer.write(out).value();
  return out;
}

}  // namespace tailor::test
