#include "jinja/template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace tailor {
namespace {

Json golden() {
  const char* source = std::getenv("TAILOR_SOURCE_DIR");
  if (source == nullptr) throw Exception({ErrorCode::kUnavailable, "TAILOR_SOURCE_DIR is not set", ""});
  setenv("TZ", "UTC", 1);
  return read_json(std::filesystem::path(source) / "tests" / "golden" / "data" / "chat_templates.json").value();
}

Result<MarkedText> render(std::string_view source, const Json& variables, bool from_people = false,
                          const TemplateLimits& limits = {}) {
  TAILOR_TRY(const JinjaTemplate parsed, JinjaTemplate::parse(source));
  std::vector<TemplateVariable> given;
  for (const auto& [name, value] : variables.items()) given.push_back({name, &value, from_people});
  return parsed.render(given, 1'780'315'200, limits);
}

std::string failure_of(std::string_view source, const Json& variables = Json::object()) {
  const auto out = render(source, variables, false, {.steps = 2'000'000, .bytes = std::size_t{1} << 24});
  return out ? "no failure: " + out->bytes : out.error().message;
}

/// [own](of people)
std::string shown(const MarkedText& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.end_of_run(at);
    out += text.is_foreign(at) ? '(' : '[';
    out += text.bytes.substr(at, end - at);
    out += text.is_foreign(at) ? ')' : ']';
    at = end;
  }
  return out;
}

TEST(JinjaTemplate, ExpressionsAsInJinja2) {
  const Json reference = golden();
  int checked = 0;
  for (const Json& expression : reference.at("expressions")) {
    const auto out = render(expression.at("source").get<std::string>(), reference.at("variables"));
    ++checked;
    if (expression.at("out").is_null()) {
      EXPECT_FALSE(out.has_value()) << expression.at("source") << " gives " << out->bytes;
    } else {
      ASSERT_TRUE(out.has_value()) << expression.at("source") << ": " << out.error().message;
      EXPECT_EQ(out->bytes, expression.at("out").get<std::string>()) << expression.at("source");
    }
  }
  EXPECT_GE(checked, 50);
}

TEST(JinjaTemplate, WhatPeopleWroteStaysMarked) {
  const Json given{{"m", {{"role", "user"}, {"content", " <b> one, two "}}}};
  const auto marks = [&](std::string_view source) { return shown(render(source, given, true).value()); };
  EXPECT_EQ(marks("<{{ m.role }}>{{ m.content }}</>"), "[<user>]( <b> one, two )[</>]");
  EXPECT_EQ(marks("{{ '<' + m.content.strip() + '>' }}"), "[<](<b> one, two)[>]");
  EXPECT_EQ(marks("{{ m.content.split(',')[0] ~ '|' }}"), "( <b> one)[|]");
  EXPECT_EQ(marks("{{ m.content | upper | replace('ONE', '1') }}"), "( <B> )[1](, TWO )");
  EXPECT_EQ(marks("{{ {'k': m.content} | tojson }}"), "[{\"k\": \"]( <b> one, two )[\"}]");
  EXPECT_EQ(marks("{{ [m.content[1:4], 'x'] | join('-') }}"), "(<b>)[-x]");
  EXPECT_EQ(marks("{{ [m.content] }}"),
            "[[']("
            " <b> one, two "
            ")[']]");
  EXPECT_EQ(marks("{% set t %}a{{ m.content[1:4] }}{% endset %}{{ t | indent(1, true) }}"), "[ a](<b>)");
  EXPECT_EQ(marks("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(m.content[1:4] | title) }}"), "[<](<B>)[>]");
}

TEST(JinjaTemplate, SaysWhatIsWrongAndWhere) {
  EXPECT_EQ(failure_of("a\n{{ x.y }}"), "'x' is undefined (line 2, column 5 of the template)");
  EXPECT_EQ(failure_of("{{ raise_exception('No system role') }}"), "No system role");
  EXPECT_EQ(failure_of("{% if true %}"), "a block has no {% endif %} (line 1, column 14 of the template)");
  EXPECT_EQ(failure_of("{% include 'x' %}"), "unknown tag {% include %} (line 1, column 4 of the template)");
  EXPECT_EQ(failure_of("{{ 'a' | shout }}"), "there is no filter 'shout' (line 1, column 10 of the template)");
  EXPECT_EQ(failure_of("{{ [1].append(2) }}"),
            "a template must not change lists and dictionaries (line 1, column 14 of the template)");
  EXPECT_EQ(failure_of("{{ 1 + }}"),
            "expected an expression, saw the end of the tag (}}) (line 1, column 8 of the template)");
  EXPECT_EQ(failure_of("\xFF"), "the template is not UTF-8");
  EXPECT_EQ(JinjaTemplate::parse(std::string(JinjaTemplate::kMostBytes + 1, 'a')).error().message,
            "a template of 1048577 bytes; the limit is 1048576");
}

TEST(JinjaTemplate, HostileTemplatesAreStopped) {
  const auto repeated = [](std::string_view part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += part;
    return out;
  };
  // Time.
  EXPECT_EQ(failure_of("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
            "the template takes too many steps");
  EXPECT_NE(failure_of("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}").find("too deeply"),
            std::string::npos);
  EXPECT_NE(failure_of("{{ range(1000000) }}").find("more than 100000"), std::string::npos);
  // Memory.
  EXPECT_NE(failure_of("{{ 'a' * 999999999999 }}").find("too large"), std::string::npos);
  EXPECT_NE(
      failure_of(
          "{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}")
          .find("too m"),
      std::string::npos);
  EXPECT_NE(
      failure_of("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}")
          .find("too m"),
      std::string::npos);
  EXPECT_NE(failure_of("{% for i in range(99999) %}" + repeated("long text ", 1000) + "{% endfor %}").find("too m"),
            std::string::npos);
  EXPECT_NE(failure_of("{{ ('a' * 20000) | replace('a', 'b' * 200000) }}").find("too m"), std::string::npos);
  EXPECT_NE(failure_of("{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}")
                .find("nested deeper"),
            std::string::npos);
  // A list that holds itself many times is small, but not when it is written out.
  EXPECT_NE(
      failure_of(
          "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}")
          .find("too m"),
      std::string::npos);
  // Depth of the parser and of the tree.
  EXPECT_NE(failure_of("{{ " + repeated("(", 5000) + " }}").find("nested deeper"), std::string::npos);
  EXPECT_NE(failure_of("{{ " + repeated("not ", 5000) + "1 }}").find("nested too deeply"), std::string::npos);
  EXPECT_NE(failure_of("{{ 1" + repeated(" + 1", 5000) + " }}").find("too long"), std::string::npos);
  EXPECT_NE(failure_of("{{ a" + repeated(".a", 5000) + " }}").find("too long"), std::string::npos);
  EXPECT_NE(failure_of(repeated("{% if 1 %}", 5000)).find("nested deeper"), std::string::npos);
  EXPECT_NE(failure_of("{{ 1" + repeated(" if 1 else 1", 5000) + " }}").find("too"), std::string::npos);
  // Numbers.
  EXPECT_NE(failure_of("{{ 9223372036854775807 + 1 }}").find("too large"), std::string::npos);
  EXPECT_NE(failure_of("{{ 3 is divisibleby 0 }}").find("division by zero"), std::string::npos);
  EXPECT_NE(failure_of("{{ 2 ** 99999999 }}").find("too large"), std::string::npos);
  // What would be a cycle.
  EXPECT_NE(failure_of("{% set ns = namespace() %}{% set ns.me = [ns] %}").find("cannot hold"), std::string::npos);
}

TEST(JinjaTemplate, KnowsItsVariables) {
  const JinjaTemplate parsed = JinjaTemplate::parse("{{ messages }}{% if enable_thinking %}{% endif %}").value();
  EXPECT_TRUE(parsed.mentions("enable_thinking"));
  EXPECT_FALSE(parsed.mentions("tools"));
}

}  // namespace
}  // namespace tailor
