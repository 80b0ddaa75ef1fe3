#include <fmt/format.h>

#include <array>

#include "model/import_decoder_tokens.h"

namespace tailor {
namespace {

using Json = TokenJson;

// Patterns as the models' tokenizer.json files write them.
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kBloom = " ?[^(\\s|[.,!?…。，、।۔،])]+";
constexpr const char* kThreeDigits = "[0-9][0-9][0-9]";

struct Known {
  const char* name;
  const char* pattern;  // of a Split before ByteLevel; nullptr: see json_of()
  bool ignore_merges;
};
constexpr std::array<Known, 9> kKnown = {{
    {"gpt-2", nullptr, false},
    {"smollm", nullptr, false},
    {"falcon", nullptr, false},
    {"bloom", kBloom, false},
    {"qwen2", kQwen2, false},
    {"llama-bpe", kLlama3, true},
    {"smaug-bpe", kLlama3, false},
    {"tekken", kTekken, true},
    {"gpt-4o", kGpt4o, false},
}};
// Other names of the same pre-tokenizers in files of llama.cpp's converter.
constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"mpt", "gpt-2"},        {"olmo", "gpt-2"},         {"phi-2", "gpt-2"},    {"roberta-bpe", "gpt-2"},
    {"llama3", "llama-bpe"}, {"llama-v3", "llama-bpe"}, {"dbrx", "smaug-bpe"}, {"deepseek-r1-qwen", "qwen2"},
    {"megrez", "qwen2"},     {"starcoder", "smollm"},   {"refact", "smollm"},  {"modern-bert", "gpt-2"},
};

std::string_view canonical(std::string_view name) {
  for (const auto& [alias, target] : kAliases) {
    if (alias == name) return target;
  }
  return name;
}

const Known* find_known(std::string_view name) {
  for (const Known& k : kKnown) {
    if (k.name == canonical(name)) return &k;
  }
  return nullptr;
}

Json byte_level(bool leading_space, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", leading_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json split(const char* pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json sequence(Json steps) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

Json json_of(const Known& k, bool leading_space) {
  const std::string_view name = k.name;
  if (k.pattern != nullptr) return sequence(Json::array({split(k.pattern), byte_level(leading_space, false)}));
  if (name == "gpt-2") return byte_level(leading_space, true);
  if (name == "smollm") {
    return sequence(
        Json::array({Json{{"type", "Digits"}, {"individual_digits", true}}, byte_level(leading_space, true)}));
  }
  return sequence(
      Json::array({Json{{"type", "Punctuation"}, {"behavior", "Contiguous"}}, byte_level(leading_space, true),
                   Json{{"type", "Digits"}, {"individual_digits", false}}, split(kThreeDigits)}));
}

/// Keys that change no token are left out, absent ones get the library's own values, sequences of one step become it.
Json plain(const Json& step) {
  if (!step.is_object()) return step;
  const std::string type = step.value("type", std::string("none"));
  if (type == "Sequence" && step.contains("pretokenizers") && step["pretokenizers"].is_array()) {
    Json steps = Json::array();
    for (const Json& inner : step["pretokenizers"]) steps.push_back(plain(inner));
    return steps.size() == 1 ? steps[0] : steps;
  }
  if (type == "ByteLevel") return {{"type", type}, {"use_regex", step.value("use_regex", true)}};
  if (type == "Digits") return {{"type", type}, {"individual_digits", step.value("individual_digits", false)}};
  if (type == "Punctuation") return {{"type", type}, {"behavior", step.value("behavior", "Isolated")}};
  if (type == "Split") {
    return {{"type", type},
            {"pattern", step.value("pattern", Json())},
            {"behavior", step.value("behavior", "")},
            {"invert", step.value("invert", false)}};
  }
  return step;
}

/// ByteLevel's setting, wherever it stands.
bool has_leading_space(const Json& step) {
  if (!step.is_object()) return false;
  if (step.value("type", std::string()) == "ByteLevel") return step.value("add_prefix_space", true);
  for (const Json& inner : step.value("pretokenizers", Json::array())) {
    if (has_leading_space(inner)) return true;
  }
  return false;
}

}  // namespace

Result<PreTokenizer> recognize_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges) {
  const Json seen = plain(pre_tokenizer);
  bool same_pattern = false;
  for (const Known& k : kKnown) {
    if (plain(json_of(k, false)) != seen) continue;
    if (k.ignore_merges == ignore_merges) return PreTokenizer{k.name, has_leading_space(pre_tokenizer)};
    same_pattern = true;
  }
  if (same_pattern) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("llama.cpp has no pre-tokenizer of this pattern with ignore_merges {}", ignore_merges),
                 ""};
  }
  std::string text = pre_tokenizer.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 240) text = text.substr(0, 240) + "…";
  return Error{ErrorCode::kInvalidArgument, fmt::format("the pre-tokenizer {} is not one that Tailor knows", text), ""};
}

std::optional<Json> pre_tokenizer_json(std::string_view name, bool leading_space) {
  const Known* k = find_known(name);
  if (k == nullptr) return std::nullopt;
  return json_of(*k, leading_space);
}

bool ignores_merges(std::string_view name) {
  const Known* k = find_known(name);
  return k != nullptr && k->ignore_merges;
}

}  // namespace tailor
