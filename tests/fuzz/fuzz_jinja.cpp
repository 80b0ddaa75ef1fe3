#include <tuple>

#include "fuzz.h"
#include "jinja/template.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {
      "{% for m in messages %}{{ '<|' + m['role'] + '|>' ~ m.content | trim }}{% if loop.last %}!{% endif %}{% endfor "
      "%}",
      "{%- macro f(a, b=1) -%}{{ a|tojson(indent=2) }}{{ caller() if caller }}{%- endmacro -%}{% call f(messages) "
      "%}x{% endcall %}",
      "{% set ns = namespace(n=0) %}{% for i in range(9)[::-2] %}{% set ns.n = ns.n + i ** 2 // 3 %}{% endfor %}{{ "
      "ns.n }}",
      "{% set a, b = 'x y'.split(), {'k': [1, 2.5, none]} %}{{ a[-1:] + b.k | map('string') | list }}{{ b | dictsort | "
      "join }}",
      "{% raw %}{{{% endraw %}{# c #}{% filter upper %}a{% endfilter %}{{ messages | selectattr('role', 'eq', 'user') "
      "| list | length is odd }}",
      "{% generation %}{{ messages[0].content.replace('a', 'b') | indent(3, true) }}{% endgeneration %}{{ "
      "strftime_now('%d') }}",
      "{{ '%s-%d' % ('a', 3) }}{{ 'a' * 3 }}{{ 1 < 2 <= 3 and not 'a' in 'b' or 5 % -3 }}{{ raise_exception('e') if "
      "false else -x }}",
  };
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto parsed = tailor::JinjaTemplate::parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!parsed) return 0;
  const tailor::Json messages = tailor::Json::parse(
      R"([{"role":"user","content":"a <b> \u00fc"},{"role":"assistant","content":null,"tool_calls":[{"x":1.5}]}])");
  const tailor::TemplateVariable variables[] = {{"messages", &messages, true}};
  const auto out = parsed->render(variables, 0, {.steps = 200'000, .bytes = std::size_t{1} << 24});
  if (!out) return 0;
  std::size_t end = 0;
  for (const tailor::ByteRange& range : out->foreign) {  // in order, apart, inside
    if (range.begin >= range.end || (end > 0 && range.begin <= end) || range.end > out->size()) __builtin_trap();
    end = range.end;
  }
  return 0;
}
