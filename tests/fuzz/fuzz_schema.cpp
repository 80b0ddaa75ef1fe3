#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "core/rng.h"
#include "fuzz.h"
#include "infer/constraint.h"
#include "infer/test_byte_vocabulary.h"
#include "infer/test_json_validator.h"

namespace tailor::fuzz {
namespace {

constexpr std::int32_t kEnd = testing::kByteVocabularyEnd;

/// A schema that each byte adds something to.
class Invented {
 public:
  explicit Invented(std::string_view bytes) : bytes_(bytes) {}

  Json schema() {
    Json out = part(0);
    if (out.is_object()) out["$defs"] = {{"a", part(1)}, {"b", part(1)}};
    return out;
  }

 private:
  std::size_t next(std::size_t n) { return at_ < bytes_.size() ? static_cast<unsigned char>(bytes_[at_++]) % n : 0; }

  Json part(int depth) {
    static const char* const kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};
    static const char* const kNames[] = {"a", "b", "ab", "\xC3\xA9", "q\""};
    static const char* const kPatterns[] = {"^a*$", "b", "^[a-c]{2}", "^(a|bc)+$", "[^x]$"};
    if (depth > 4) return true;
    Json out = Json::object();
    if (next(8) > 0) out["type"] = kTypes[next(std::size(kTypes))];
    for (std::size_t count = next(4); count > 0; --count) {
      const auto number = static_cast<int>(next(12)) - 4;
      switch (next(20)) {
        case 0:
        case 1:
        case 2:
          for (std::size_t n = next(4); n > 0; --n)
            out["properties"][kNames[next(std::size(kNames))]] = part(depth + 1);
          break;
        case 3:
        case 4:
          out["required"].push_back(kNames[next(std::size(kNames))]);
          break;
        case 5:
          out["additionalProperties"] = next(2) == 0 ? Json(next(2) == 0) : part(depth + 1);
          break;
        case 6:
          out["items"] = part(depth + 1);
          break;
        case 7:
          out["prefixItems"].push_back(part(depth + 1));
          break;
        case 8:
          out[next(2) == 0 ? "minItems" : "maxItems"] = next(4);
          break;
        case 9:
          out[next(2) == 0 ? "minLength" : "maxLength"] = next(5);
          break;
        case 10:
          out["pattern"] = kPatterns[next(std::size(kPatterns))];
          break;
        case 11:
          out[next(2) == 0 ? "minimum" : "exclusiveMinimum"] = number + (next(2) == 0 ? 0.0 : 0.25);
          break;
        case 12:
          out[next(2) == 0 ? "maximum" : "exclusiveMaximum"] = number;
          break;
        case 13:
          out["enum"] = {number, "ab", nullptr, Json::array({1}), 0.25, true};
          break;
        case 14:
          for (const char* key : {"anyOf", "oneOf", "allOf"}) {
            if (next(2) == 0) out[key].push_back(part(depth + 1));
          }
          break;
        case 15:
        case 16:
          out[next(2) == 0 ? "anyOf" : "allOf"] = {part(depth + 1), part(depth + 1)};
          break;
        case 17:
          out["oneOf"] = {{{"type", kTypes[next(3)]}}, {{"type", kTypes[3 + next(4)]}}};
          break;
        case 18:
          out["$ref"] = next(4) == 0 ? "#" : next(2) == 0 ? "#/$defs/a" : "#/$defs/b";
          break;
        default:
          out[next(2) == 0 ? "minProperties" : "maxProperties"] = next(3);
      }
    }
    return out;
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
};

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void stop(const char* why) {
  std::fprintf(stderr, "%s\n", why);
  std::abort();
}

/// A text of random tokens; where it ends, it must be valid.
void walk(const std::shared_ptr<const Constraint>& constraint, std::size_t words, const Json* schema, Rng& rng) {
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
      if (schema == nullptr) return;
      const Json value = Json::parse(text, nullptr, false);
      if (value.is_discarded() || !testing::JsonValidator(*schema).valid(value)) {
        stop(("the text " + text + " does not follow " + schema->dump()).c_str());
      }
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
  std::vector<std::string> out = {
      R"(s{"type":"object","properties":{"name":{"type":"string","minLength":1,"maxLength":200},"age":{"type":"integer","minimum":0,"maximum":150},"tags":{"type":"array","items":{"enum":["a","b"]},"minItems":1,"maxItems":3}},"required":["name","age"],"additionalProperties":false})",
      R"(s{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"type":"number","exclusiveMinimum":-1.5},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"]}}})",
      R"(s{"allOf":[{"type":["object","null"],"properties":{"a":{"pattern":"^[a-c]+\\d{2,3}$"}}},{"properties":{"a":{"maxLength":6},"b":{"format":"date-time"}},"additionalProperties":{"type":"boolean"}}]})",
      R"(s{"oneOf":[{"properties":{"k":{"const":1}},"required":["k"],"type":"object"},{"type":"array","prefixItems":[{"type":"string"},{}],"items":false}]})",
      R"(s{"properties":{"q\"":{"enum":[{"a":1,"b":[2]}],"const":{"b":[2],"a":1.0}}},"additionalProperties":{"minLength":900}})",
      R"(s{"anyOf":[{"pattern":"^(a?){1000}b{9}$"},{"pattern":"^(a?){1000}c{9}$"},{"minimum":0.5},{"minLength":1000}]})",
      R"(r^(\w+\s?)+[^a-f"\\]{2,5}(\.|\u00e9)?$|x{3})",
      "groot ::= \"x\" (\"\"{1000000}){19000} a\na ::= (\"b\"?){1000} [0-9]{1000}\nb ::= a a\n",
      "groot ::= item (\",\" item){0,3}\nitem ::= [a-c]+ | \"(\" root \")\" | \"\\\"\" [^\"\\n]* \"\\\"\" # end\n",
  };
  add_invented(out, 4, 60);
  return out;
}

}  // namespace tailor::fuzz

/// The first byte chooses: "s" a schema, "r" a regular expression, "g" a grammar, "q" a schema that the bytes invent,
/// which holds no pattern but those above: its texts are also judged by the standard's definitions.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using tailor::ConstraintSpec;
  using tailor::Json;
  static tailor::ConstraintCompiler compiler =
      tailor::ConstraintCompiler::make(tailor::testing::byte_vocabulary(), {.cache_bytes = std::size_t{8} << 20})
          .value();
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  ConstraintSpec spec{.kind = data[0] == 'r'   ? ConstraintSpec::Kind::kRegex
                              : data[0] == 'g' ? ConstraintSpec::Kind::kGrammar
                                               : ConstraintSpec::Kind::kJsonSchema};
  spec.text = text;
  const Json* schema = nullptr;
  if (data[0] == 'q') {
    spec.schema = tailor::fuzz::Invented(text).schema();
    schema = &spec.schema;
  } else if (spec.kind == ConstraintSpec::Kind::kJsonSchema) {
    auto read = tailor::parse_json(text, "schema");
    if (!read) return 0;
    spec.schema = std::move(*read);
  }
  const double begin = tailor::fuzz::seconds();
  const auto constraint = compiler.compile(spec);
  if (constraint) {
    tailor::Rng rng(size);
    for (int i = 0; i < 3; ++i) tailor::fuzz::walk(*constraint, compiler.mask_words(), schema, rng);
  }
#ifdef NDEBUG
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr double kMostSeconds = 10;
#else
  constexpr double kMostSeconds = 1;
#endif
  if (tailor::fuzz::seconds() - begin > kMostSeconds) tailor::fuzz::stop("it took too long");
#else
  (void)begin;
#endif
  return 0;
}
