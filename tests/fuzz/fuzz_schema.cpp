#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "core/rng.h"
#include "fuzz.h"
#include "infer/constraint.h"
#include "model/gguf_writer.h"

namespace tailor::fuzz {
namespace {

constexpr std::int32_t kEnd = 256;

/// A vocabulary of all single bytes, some longer tokens and one that ends a text: masks are made quickly.
ConstraintCompiler make_compiler() {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  const auto add = [&](std::string text, std::int32_t type) {
    tokens.push_back(std::move(text));
    types.push_back(type);
  };
  for (unsigned byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name, 6);
  }
  add("</s>", 3);
  for (const char* text :
       {"\":", "\",", "\"}", "},", "{\"", "[\"", "true", "false", "null", "ab", "abc", "00", "12", "\\u", "\xC3\xA9"})
    add(text, 1);
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  writer.set("tokenizer.ggml.model", GgufValue::string("llama"));
  writer.set("tokenizer.ggml.tokens", GgufValue::strings(tokens));
  writer.set("tokenizer.ggml.scores", GgufValue::f32s(std::vector<float>(tokens.size(), 0.0F)));
  writer.set("tokenizer.ggml.token_type", GgufValue::i32s(types));
  writer.set("tokenizer.ggml.eos_token_id", GgufValue::u32(kEnd));
  InputFile file;
  const std::filesystem::path& path = file.put("");
  writer.write(path).value();
  return ConstraintCompiler::make(Tokenizer::load(path).value(), {.cache_bytes = std::size_t{8} << 20}).value();
}

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void stop(const char* why) {
  std::fprintf(stderr, "%s\n", why);
  std::abort();
}

/// A text of random tokens; where it ends, a text of a schema must be JSON.
void walk(const std::shared_ptr<const Constraint>& constraint, std::size_t words, bool json, Rng& rng) {
  static const std::vector<std::string> kBytes = [] {
    std::vector<std::string> out;
    for (int i = 0; i < 256; ++i) out.emplace_back(1, static_cast<char>(i));
    return out;
  }();
  ConstraintState state(constraint);
  std::vector<std::uint32_t> mask(words);
  std::string text;
  for (int step = 0; step < 60; ++step) {
    if (!state.fill_mask(mask)) stop("a mask is empty, or took too long");
    std::vector<std::int32_t> allowed;
    for (std::int32_t i = 0; i < kEnd; ++i) {
      if ((mask[static_cast<std::size_t>(i) / 32] >> (i % 32) & 1) != 0) allowed.push_back(i);
    }
    if (state.may_end() && (allowed.empty() || rng.below(4) == 0)) {
      if (!state.accept(kEnd) || !state.finished()) stop("the text could not end");
      if (json && Json::parse(text, nullptr, false).is_discarded()) stop("the text is no JSON");
      return;
    }
    if (allowed.empty()) stop("only tokens of several bytes are allowed");
    const std::int32_t next = allowed[rng.below(allowed.size())];
    text += kBytes[static_cast<std::size_t>(next)];
    if (!state.accept(next)) stop("a token of the mask was refused");
    (void)state.forced();
  }
}

}  // namespace

std::vector<std::string> seeds() {
  return {
      R"(s{"type":"object","properties":{"name":{"type":"string","minLength":1,"maxLength":200},"age":{"type":"integer","minimum":0,"maximum":150},"tags":{"type":"array","items":{"enum":["a","b"]},"minItems":1,"maxItems":3}},"required":["name","age"],"additionalProperties":false})",
      R"(s{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"type":"number","exclusiveMinimum":-1.5},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"]}}})",
      R"(s{"allOf":[{"type":["object","null"],"properties":{"a":{"pattern":"^[a-c]+\\d{2,3}$"}}},{"properties":{"a":{"maxLength":6},"b":{"format":"date-time"}},"additionalProperties":{"type":"boolean"}}]})",
      R"(s{"oneOf":[{"properties":{"k":{"const":1}},"required":["k"],"type":"object"},{"type":"array","prefixItems":[{"type":"string"},{}],"items":false}]})",
      R"(r^(\w+\s?)+[^a-f"\\]{2,5}(\.|\u00e9)?$|x{3})",
      "groot ::= item (\",\" item){0,3}\nitem ::= [a-c]+ | \"(\" root \")\" | \"\\\"\" [^\"\\n]* \"\\\"\" # end\n",
  };
}

}  // namespace tailor::fuzz

/// The first byte chooses: "s" a schema, "r" a regular expression, "g" a grammar.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using tailor::ConstraintSpec;
  static tailor::ConstraintCompiler compiler = tailor::fuzz::make_compiler();
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  ConstraintSpec spec{.kind = data[0] == 'r'   ? ConstraintSpec::Kind::kRegex
                              : data[0] == 'g' ? ConstraintSpec::Kind::kGrammar
                                               : ConstraintSpec::Kind::kJsonSchema};
  spec.text = text;
  if (spec.kind == ConstraintSpec::Kind::kJsonSchema) {
    auto schema = tailor::parse_json(text, "schema");
    if (!schema) return 0;
    spec.schema = std::move(*schema);
  }
  const double begin = tailor::fuzz::seconds();
  const auto constraint = compiler.compile(spec);
  if (constraint) {
    tailor::Rng rng(size);
    for (int i = 0; i < 3; ++i)
      tailor::fuzz::walk(*constraint, compiler.mask_words(), spec.kind == ConstraintSpec::Kind::kJsonSchema, rng);
  }
#ifdef NDEBUG
  if (tailor::fuzz::seconds() - begin > 1) tailor::fuzz::stop("it took more than a second");
#else
  (void)begin;
#endif
  return 0;
}
