#include "infer/schema_grammar.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

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

}  // namespace
}  // namespace tailor
