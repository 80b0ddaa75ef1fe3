#include "infer/schema_grammar.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "core/files.h"
#include "infer/test_constraints.h"
#include "infer/test_json_validator.h"

namespace tailor {
namespace {

using testing::allows;
using testing::schema_spec;

const Json& cases() {
  static const Json kCases = read_json(testing::golden("schema_cases.json")).value();
  return kCases;
}

std::shared_ptr<const Constraint> compiled(const Json& schema) {
  return testing::smollm_compiler().compile(schema_spec(schema)).value();
}

/// What the jsonschema package calls valid, in the three ways in which Python prints it; and nothing that it calls
/// invalid.
TEST(SchemaGrammar, AllowsWhatTheStandardAllowsAndForbidsWhatItForbids) {
  for (const Json& c : cases()) {
    const auto constraint = compiled(c["schema"]);
    const testing::JsonValidator validator(c["schema"]);
    for (const Json& text : c["valid"]) {
      EXPECT_TRUE(allows(constraint, text.get<std::string>())) << text << "\nschema: " << c["schema"];
      EXPECT_TRUE(validator.valid(Json::parse(text.get<std::string>()))) << text << "\nschema: " << c["schema"];
    }
    for (const Json& text : c["invalid"]) {
      EXPECT_FALSE(allows(constraint, text.get<std::string>())) << text << "\nschema: " << c["schema"];
    }
  }
}

/// Texts drawn from the masks are JSON, valid by the definition of each keyword. TAILOR_SAMPLES names a file to which
/// they are written, for tests/golden/schema_golden.py --check.
TEST(SchemaGrammar, WhatIsDrawnFromItIsValid) {
  std::ofstream samples;
  if (const char* file = std::getenv("TAILOR_SAMPLES")) samples.open(file);
  Rng rng(3);
  for (const Json& c : cases()) {
    const auto constraint = compiled(c["schema"]);
    const testing::JsonValidator validator(c["schema"]);
    for (int i = 0; i < 12; ++i) {
      const std::string text = testing::draw(constraint, rng);
      const Json value = Json::parse(text, nullptr, false);
      EXPECT_TRUE(!value.is_discarded() && validator.valid(value)) << text << "\nschema: " << c["schema"];
      if (samples.is_open()) samples << Json{{"schema", c["schema"]}, {"text", text}}.dump() << '\n';
    }
  }
}

struct Refusal {
  const char* schema;
  const char* message;  // its beginning, behind "s"
};

/// Whatever would not be enforced is named with its place.
TEST(SchemaGrammar, RefusesWhatItDoesNotEnforce) {
  const Refusal refusals[] = {
      {R"({"not":{"type":"null"}})", ".not: is not enforced"},
      {R"({"if":{"type":"null"}})", ".if: is not enforced"},
      {R"({"type":"object","properties":{"age":{"type":"array","uniqueItems":true}}})",
       ".properties.age.uniqueItems: cannot be"},
      {R"({"type":"array","contains":{}})", ".contains: is not enforced"},
      {R"({"type":"integer","multipleOf":2})", ".multipleOf: is not enforced"},
      {R"({"patternProperties":{}})", ".patternProperties: is not enforced"},
      {R"({"propertyNames":{}})", ".propertyNames: is not enforced"},
      {R"({"dependentRequired":{}})", ".dependentRequired: is not enforced"},
      {R"({"anyOf":[{"type":"null"},{"minLenght":3}]})", ".anyOf[1].minLenght: is not enforced"},
      {R"({"type":"string","nullable":true})", ".nullable: is OpenAPI's"},
      {R"({"$dynamicRef":"#x"})", ".$dynamicRef: is not enforced"},
      {R"({"unevaluatedItems":false})", ".unevaluatedItems: is not enforced"},
      {R"({"type":"object","unevaluatedProperties":{}})", ".unevaluatedProperties: can only be"},
      {R"({"anyOf":[{}],"oneOf":[{}]})", ".oneOf: cannot be enforced beside anyOf"},
      {R"({"enum":["a","b"],"minLength":1})", ".minLength: is not enforced beside enum"},
      {R"({"enum":["x","2020-01-01"],"format":"date"})", ".format: is not enforced beside enum"},
      {R"({"const":"x","anyOf":[{"format":"date"}]})", ".anyOf[0].format: is not enforced beside enum"},
      {R"({"type":"object","properties":{"a":{}},"minProperties":2})", ".minProperties: is not enforced"},
      {R"({"type":"object","minProperties":2})", ".minProperties: is not enforced"},
      {R"({"type":"object","properties":{"a":{},"b":{}},"maxProperties":1})", ".maxProperties: is not enforced"},
      {R"({"type":"string","format":"date","pattern":"a"})", ".pattern: cannot be enforced"},
      {R"({"type":"array","items":[{}]})", ".items: is a list"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", ".oneOf: branches 0 and 1 may allow the same value"},
      {R"({"oneOf":[{"type":"object","properties":{"a":{"const":1}}},{"type":"object","properties":{"a":{"const":2}}}]})",
       ".oneOf: branches 0 and 1"},
      {R"({"allOf":[{"pattern":"a"},{"pattern":"b"}]})", ".pattern: two of them"},
      {R"({"allOf":[{"anyOf":[{}]},{"anyOf":[{"type":"null"}]}]})", ".anyOf: two of them"},
      // References
      {R"({"$ref":"https://example.com/s"})", ".$ref: \"https://example.com/s\" is not within"},
      {R"({"$ref":"#/$defs/x"})", ".$ref: \"#/$defs/x\" names nothing"},
      {R"({"$ref":"#/title","title":"t"})", ".$ref: \"#/title\" names no schema"},
      {R"({"$ref":"#/%zz"})", ".$ref: is no JSON pointer"},
      {R"({"$ref":5})", ".$ref: must be a string"},
      {R"({"properties":{"a":{"$id":"b","type":"null"}}})", ".properties.a.$id: is only supported at the top"},
      {R"({"allOf":[{"$id":"b"},{"type":"null"}]})", ".allOf[0].$id: is only supported at the top"},
      {R"({"$ref":"#"})", ".$ref: \"#\" leads to itself"},
      {R"({"anyOf":[{"type":"null"},{"$ref":"#"}]})", ".anyOf[1].anyOf[1].$ref: \"#\" leads to itself"},
      {R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}})",
       ".$ref: \"#/$defs/a\" leads to itself"},
      {R"({"allOf":[{"$ref":"#"},{"type":"null"}]})", ".allOf[0].allOf[0].allOf[0].allOf[0]"},
      // Contradictions
      {R"(false)", ": no value is allowed here"},
      {R"({"type":"string","minLength":3,"maxLength":2})", ".minLength: is above maxLength (3 > 2)"},
      {R"({"type":"array","minItems":3,"maxItems":2})", ".minItems: is above maxItems"},
      {R"({"type":"array","prefixItems":[{}],"items":false,"minItems":2})",
       ".minItems: asks for 2 items where at most 1"},
      {R"({"type":"integer","minimum":3,"maximum":2})", ".minimum: no integer lies between"},
      {R"({"type":"integer","minimum":1.2,"maximum":1.8})", ".minimum: no integer lies between"},
      {R"({"type":"number","exclusiveMinimum":1,"maximum":1})", ".exclusiveMinimum: no number"},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})", ".properties.a: is required, but no value"},
      {R"({"type":"object","properties":{"a":{}},"required":["b"],"additionalProperties":false})",
       ".required: \"b\" is required"},
      {R"({"type":"object","properties":{"a":{},"b":{}},"required":["a","b"],"maxProperties":1})",
       ".maxProperties: is below the 2"},
      {R"({"type":"object","additionalProperties":false,"minProperties":1})",
       ".minProperties: asks for members where none"},
      {R"({"type":"string","enum":[1,2]})", ": no value is allowed here"},
      {R"({"allOf":[{"type":"string"},{"type":"null"}]})", ": no value is allowed here"},
      {R"({"type":"object","anyOf":[{"type":"null"}]})", ": no value is allowed here"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", ": no finite text follows"},
      // Not a schema
      {R"(5)", ": a schema must be an object"},
      {R"({"type":"text"})", ".type: \"text\" is no type"},
      {R"({"type":[]})", ".type: no type is allowed"},
      {R"({"enum":[]})", ".enum: must be a list"},
      {R"({"anyOf":[]})", ".anyOf: must be a list"},
      {R"({"allOf":{}})", ".allOf: must be a list"},
      {R"({"type":"string","minLength":-1})", ".minLength: must be a whole number"},
      {R"({"type":"string","minLength":1.5})", ".minLength: must be a whole number"},
      {R"({"type":"string","minLength":1001})", ".minLength: is above 1000"},
      {R"({"type":"array","items":{},"maxItems":1000000000})", ".maxItems: is above 100000"},
      {R"({"type":"integer","minimum":"1"})", ".minimum: must be a number"},
      {R"({"type":"number","exclusiveMinimum":true})", ".exclusiveMinimum: must be a number"},
      {R"({"type":"number","minimum":0.12345678901234567})", ".minimum: the bound 0.12345678901234566 has more digits"},
      {R"({"type":"string","pattern":7})", ".pattern: must be a string"},
      {R"x({"type":"string","pattern":"(?=a)"})x", ".pattern: the regular expression cannot be used"},
      {R"({"type":"object","properties":[]})", ".properties: must be an object"},
      {R"({"type":"object","required":"a"})", ".required: must be a list of names"},
      {R"({"type":"object","additionalProperties":3})", ".additionalProperties: a schema must be"},
  };
  for (const Refusal& refusal : refusals) {
    const auto grammar = schema_grammar(Json::parse(refusal.schema), "s");
    const auto text = grammar ? grammar->print() : Result<std::string>(grammar.error());
    if (grammar) {  // found when the whole is seen
      testing::expect_error(text, ErrorCode::kInvalidArgument, std::string(refusal.message).substr(2));
    } else {
      testing::expect_error(grammar, ErrorCode::kInvalidArgument, std::string("s") + refusal.message);
    }
  }
}

TEST(SchemaGrammar, FormatsThatAreNotEnforcedMayStandBesideConstants) {
  EXPECT_TRUE(allows(compiled(Json::parse(R"({"enum":["a","b"],"format":"phone"})")), "\"b\""));
}

Json nested(int depth) {
  Json schema = {{"type", "null"}};
  for (int i = 0; i < depth; ++i) schema = {{"items", std::move(schema)}};
  return schema;
}

TEST(SchemaGrammar, RefusesWhatIsTooLarge) {
  const auto refused = [](const Json& schema, const std::string& message) {
    testing::expect_error(schema_grammar(schema, "s"), ErrorCode::kInvalidArgument, message);
  };
  EXPECT_TRUE(schema_grammar(nested(60), "s").has_value());
  refused(nested(70), "s: is nested deeper than 64");
  refused({{"title", std::string(300 << 10, 'x')}}, "s: is larger than 256 KiB");
  Json many = Json::object(), values = Json::array();
  for (int i = 0; i < 1001; ++i) many[std::to_string(i)] = true;
  for (int i = 0; i < 10'001; ++i) values.push_back(i);
  refused({{"type", "object"}, {"properties", many}}, "s.properties: the schema has more than 1000 properties");
  Json fewer = Json::object();
  for (int i = 0; i < 257; ++i) fewer[std::to_string(i)] = true;
  refused({{"type", "object"}, {"properties", fewer}}, "s.properties: has more than 256 of which some may be left out");
  refused({{"enum", values}}, "s.enum: the schema lists more than 10000 values");
  refused({{"type", "object"}, {"properties", {{std::string(600, 'n'), true}}}},
          "s.properties: a name is longer than 512");
  // Each step doubles what has to be read.
  Json defs = {{"d0", {{"type", "object"}}}};
  for (int i = 1; i < 25; ++i) {
    const Json ref = {{"$ref", "#/$defs/d" + std::to_string(i - 1)}};
    defs["d" + std::to_string(i)] = {{"allOf", {ref, {{"properties", {{"a", ref}, {"b", ref}}}}, ref}}};
  }
  refused({{"$ref", "#/$defs/d24"}, {"$defs", defs}}, "grows too large");
}

Json any_of(int count, const std::function<Json(int)>& branch) {
  Json branches = Json::array();
  for (int i = 0; i < count; ++i) branches.push_back(branch(i));
  return {{"anyOf", std::move(branches)}};
}

/// What is refused when it is printed must not take memory and time until then: the reader itself refuses it, at the
/// place where it grows too large.
TEST(SchemaGrammar, ManySmallSchemasAreRefusedBeforeTheyAreBuilt) {
  const auto refused = [](const Json& schema, const std::string& place, const std::string& message) {
    const auto grammar = schema_grammar(schema, "s");
    testing::expect_error(grammar, ErrorCode::kInvalidArgument, message);
    if (!grammar) {
      EXPECT_TRUE(grammar.error().message.starts_with(place)) << grammar.error().message;
    }
  };
  const std::string large = ": the grammar is larger than 200000 characters";
  const auto number = [](int i) { return Json{{"type", "number"}, {"minimum", i + 0.5}}; };
  refused(any_of(2000, number), "s.anyOf[", "]" + large);
  const auto letters = [](int i) { return Json{{"pattern", "^a{900}b{900}c{900}d{" + std::to_string(i) + "}$"}}; };
  refused(any_of(40, letters), "s.anyOf[", "].pattern" + large);
  const auto work = [](int i) { return Json{{"pattern", "^(a?){1000}b{" + std::to_string(i) + "}$"}}; };
  refused(any_of(10, work), "s.anyOf[", "].pattern: the regular expression cannot be used: its automaton, with those");
  const auto list = [](int i) {
    Json items(5000, 0);
    items[0] = i;
    return Json{{"const", std::move(items)}};
  };
  refused(any_of(20, list), "s.anyOf[", "]" + large);
  Json copies = any_of(30, [](int) { return Json::parse(R"({"$ref":"#/$defs/long","type":"string"})"); });
  copies["$defs"] = {{"long", {{"enum", {std::string(10'000, 'x')}}}}};
  refused(copies, "s.anyOf[", "]" + large);
  Json names = Json::object();
  for (int i = 0; i < 100; ++i) names[std::to_string(100 + i) + std::string(400, 'n')] = true;
  refused({{"type", "object"}, {"properties", names}, {"additionalProperties", true}}, "s.additionalProperties", large);
}

TEST(SchemaGrammar, EqualPartsAreWrittenOnce) {
  const auto rules = [](const Json& schema) { return schema_grammar(schema, "s").value().rules(); };
  EXPECT_LT(rules(any_of(20, [](int i) { return Json{{"minLength", 1000 - i}}; })), 1100U);
  EXPECT_LT(rules(any_of(20, [](int i) { return Json{{"minLength", 1000 - i}, {"maxLength", 2000}}; })), 1100U);
  const Json code = {{"pattern", "^a{900}b{900}$"}};
  EXPECT_LT(rules(any_of(20, [&](int) { return code; })), rules(code) + 100);
}

/// Names are compared one by one.
TEST(SchemaGrammar, MergingManyNamesIsRefused) {
  const auto part = [](const std::string& prefix) {
    Json out = Json::object();
    for (int i = 0; i < 8000; ++i) out[prefix + std::to_string(i)] = 0;
    return out;
  };
  testing::expect_error(schema_grammar({{"allOf", {part("x-a"), part("x-b")}}}, "s"), ErrorCode::kInvalidArgument,
                        "s: the schema grows too large");
}

TEST(SchemaGrammar, CountsOfOtherTypesConstrainNothing) {
  const auto constraint = compiled({{"type", "integer"}, {"minLength", 3}, {"pattern", "x"}, {"required", {"a"}}});
  EXPECT_TRUE(allows(constraint, "5"));
  EXPECT_FALSE(allows(constraint, "\"x\""));
}

TEST(SchemaGrammar, WhiteSpaceIsBounded) {
  const auto constraint = compiled({{"type", "array"}});
  EXPECT_TRUE(allows(constraint, "[\n" + std::string(64, ' ') + "1]"));
  EXPECT_FALSE(allows(constraint, "[\n" + std::string(65, ' ') + "1]"));
  for (const char* text : {"[  1]", "[\n\n1]", " [1]", "[1] ", "[1 ,2]", "[\t1]", "[1,\r2]"})
    EXPECT_FALSE(allows(constraint, text)) << text;
}

TEST(SchemaGrammar, NamesAreNotSmuggledInByEscapes) {
  const auto constraint = compiled({{"type", "object"},
                                    {"properties", {{"a", {{"type", "integer"}}}}},
                                    {"additionalProperties", {{"type", "string"}}}});
  EXPECT_TRUE(allows(constraint, R"({"a":1,"b":"x"})"));
  EXPECT_FALSE(allows(constraint, R"({"a":"x"})"));
  EXPECT_FALSE(allows(constraint, R"({"\u0061":"x"})"));
  EXPECT_FALSE(allows(constraint, R"({"b":"x","a":"y"})"));
}

/// A further name is written without escapes: it can neither equal such a name nor begin as one.
TEST(SchemaGrammar, NamesWithQuotesLeaveFurtherNamesWhole) {
  const auto constraint = compiled({{"type", "object"},
                                    {"properties",
                                     {{"q\"", {{"type", "integer"}}},
                                      {"b\\", {{"type", "integer"}}},
                                      {"c\n", {{"type", "integer"}}},
                                      {"cd", {{"type", "integer"}}}}},
                                    {"additionalProperties", {{"type", "string"}}}});
  for (const char* text :
       {R"({"q\"":1,"b\\":2,"c\n":3,"cd":4,"q":"v"})", R"({"b":"v","c":"v","cde":"v"})", R"({"q\"":1})"})
    EXPECT_TRUE(allows(constraint, text)) << text;
  for (const char* text : {R"({"q"x":"v"})", R"({"q\"":"v"})", R"({"b\x":"v"})", R"({"b\\":"v"})", R"({"b\":"v"})",
                           R"({"c\n":"v"})", "{\"c\nx\":\"v\"}", R"({"cd":"v"})"})
    EXPECT_FALSE(allows(constraint, text)) << text;
}

TEST(SchemaGrammar, MembersOfConstantsHaveNoOrder) {
  const auto refused = [](const char* schema, const char* message) {
    testing::expect_error(schema_grammar(Json::parse(schema), "s"), ErrorCode::kInvalidArgument, message);
  };
  refused(R"({"oneOf":[{"const":{"a":1,"b":2}},{"const":{"b":2.0,"a":1}}]})", "branches 0 and 1 may allow the same");
  refused(R"({"oneOf":[{"enum":[0,[{"a":1,"b":2}]]},{"enum":[[{"b":2,"a":1}]]}]})", "branches 0 and 1");
  for (const char* schema :
       {R"({"enum":[{"a":1,"b":[{"c":0,"d":0}]},3],"const":{"b":[{"d":0,"c":0.0}],"a":1}})",
        R"({"allOf":[{"const":{"a":1,"b":[{"c":0,"d":0}]}},{"const":{"b":[{"d":0,"c":0}],"a":1}}]})",
        R"({"allOf":[{"enum":[3,{"a":1,"b":[{"c":0,"d":0}]}]},{"enum":[{"b":[{"d":0,"c":0}],"a":1}]}]})"}) {
    const auto constraint = compiled(Json::parse(schema));
    EXPECT_TRUE(allows(constraint, R"({"a":1,"b":[{"c":0,"d":0}]})")) << schema;
    EXPECT_FALSE(allows(constraint, "3")) << schema;
  }
  refused(R"({"enum":[[1,2]],"const":[2,1]})", "no value is allowed here");
  // No double is the first.
  EXPECT_TRUE(allows(compiled(Json::parse(R"({"oneOf":[{"const":9007199254740993},{"const":9007199254740992.0}]})")),
                     "9007199254740993"));
}

TEST(SchemaGrammar, StringsHoldNoHalfOfAPairAndNoControlCharacter) {
  const auto constraint = compiled({{"type", "string"}});
  EXPECT_TRUE(allows(constraint, R"("\ud83d\ude00\u00e9\ud7ff\ue000")"));
  for (const char* text :
       {R"("\ud83d")", R"("\ud83dx")", R"("\ude00")", R"("\ud83d\ud83d")", "\"\n\"", "\"\x01\"", R"("\x")"}) {
    EXPECT_FALSE(allows(constraint, text)) << text;
  }
}

/// A branch that nothing fits is left out where another is there.
TEST(SchemaGrammar, LeavesOutBranchesThatNeverEnd) {
  const auto constraint = compiled(
      Json::parse(R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#/$defs/endless"},{"type":"null"}]}},
    "required":["next"],"$defs":{"endless":{"type":"object","properties":{"x":{"$ref":"#/$defs/endless"}},"required":["x"]}}})"));
  EXPECT_TRUE(allows(constraint, R"({"next":null})"));
  EXPECT_FALSE(allows(constraint, R"({"next":{"x":{)"));
  Rng rng(1);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Json::parse(testing::draw(constraint, rng))["next"].is_null());
}

TEST(SchemaGrammar, KnowsTheOrderOfMembersAndTheirCommas) {
  const auto constraint = compiled(Json::parse(
      R"({"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"},"c":{"type":"null"},"d":{"type":"null"}},
    "required":["c"],"additionalProperties":{"type":"integer"}})"));
  const auto text = [](std::string_view names) {
    std::string out = "{";
    for (const char name : names)
      out += std::string(out.size() > 1 ? "," : "") + '"' + name + "\":" + (name < 'e' ? "null" : "1");
    return out + "}";
  };
  for (const char* names : {"c", "ac", "bc", "abc", "cd", "acd", "abcd", "ce", "cdef", "abcdefe"})
    EXPECT_TRUE(allows(constraint, text(names))) << names;
  for (const char* names : {"", "a", "ab", "d", "ca", "ba", "cc", "ace d", "ec", "ae", "dc"})
    EXPECT_FALSE(allows(constraint, text(names))) << names;
  for (const char* wrong : {R"({,"c":null})", R"({"c":null,})", R"({"a":null "c":null})"})
    EXPECT_FALSE(allows(constraint, wrong)) << wrong;
}

TEST(SchemaGrammar, ManyOptionalMembersKeepTheirOrder) {
  Json properties = Json::object();
  for (int i = 0; i < 37; ++i) properties["p" + std::to_string(i)] = {{"const", i}};
  const auto constraint = compiled({{"type", "object"}, {"properties", properties}, {"additionalProperties", false}});
  Rng rng(9);
  for (int round = 0; round < 40; ++round) {
    std::string text = "{", swapped = "{";
    std::vector<int> chosen;
    for (int i = 0; i < 37; ++i) {
      if (rng.below(4) == 0) chosen.push_back(i);
    }
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const auto member = [&](std::size_t at) {
        return "\"p" + std::to_string(chosen[at]) + "\":" + std::to_string(chosen[at]);
      };
      text += (i > 0 ? "," : "") + member(i);
      swapped += (i > 0 ? "," : "") + member(chosen.size() - 1 - i);
    }
    EXPECT_TRUE(allows(constraint, text + "}")) << text;
    if (chosen.size() > 1) {
      EXPECT_FALSE(allows(constraint, swapped + "}")) << swapped;
    }
  }
}

}  // namespace
}  // namespace tailor
