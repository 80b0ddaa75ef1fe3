"""Reference for src/jinja and src/infer/chat_template: transformers' own rendering of chat templates.

The templates below are written for these tests, in the styles of the usual families; none is a model's. SmolLM2's own is
read from the default model, here as in the test.

Run:    python tests/golden/chat_templates_golden.py [SmolLM2-135M-Instruct.Q4_1.gguf]
Writes: tests/golden/data/chat_templates.json
          templates      name -> source
          conversations  name -> messages
          tools          the tools of cases with tools
          now            what strftime_now() shows, in seconds (UTC)
          cases          [{template ("": SmolLM2's own), conversation, tools, follows, out | null}]; null: refused
          expressions    [{source, out | null}], rendered with `variables`
"""
import copy
import datetime
import json
import os
import pathlib
import sys
import time

os.environ["TZ"] = "UTC"
time.tzset()
import gguf  # noqa: E402
import jinja2  # noqa: E402
import transformers.utils.chat_template_utils as reference  # noqa: E402

NOW = 1_780_315_200  # 2026-06-01 12:00 UTC
DEFAULT_MODEL = pathlib.Path.home() / ".cache/tailor/deps/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls):
        return datetime.datetime.fromtimestamp(NOW)


reference.datetime = FixedTime

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml-default-system": """{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\nAnswer well.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {#- each turn -#}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content | trim ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""",
    "llama2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set told = messages[0]['content'] %}\
{% else %}{% set loop_messages = messages %}{% set told = false %}{% endif %}\
{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and told != false %}{% set content = '<<SYS>>\\n' + told + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3": """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set told = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set told = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday: " + date_string + "\n\n" }}
{%- if tools is not none %}
    {{- "Tools:\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- told }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("One call at a time!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}
        {{- "<|eom_id|>" if builtin is defined else "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
    "mistral-tools": """{%- if messages[0]["role"] == "system" %}
    {%- set told = messages[0]["content"] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- set asked = rest | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in rest %}
    {%- if not (message.role == "tool" or message.tool_calls is defined) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("user and assistant must alternate") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in rest %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == asked[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and told is defined %}{{- "[INST] " + told + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}{{- raise_exception("ids have 9 characters") }}{%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}{{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "phi3": """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}\
{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}\
{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}\
{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "vicuna": """{%- set ns = namespace(told=false) -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{{- message.content + ' ' -}}{%- set ns.told = true -%}{%- endif -%}
{%- endfor -%}
{%- if not ns.told -%}A chat between a user and an assistant. {% endif -%}
{%- for message in messages if message.role != 'system' -%}
  {{- message.role | upper ~ ': ' ~ (message.content | trim) -}}
  {{- ' ' if message.role == 'user' else '</s>' -}}
{%- else -%}nothing was said{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}""",
    "command": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set told = messages[0]['content'] %}\
{% elif false == true %}{% set rest = messages %}{% set told = 'x' %}{% else %}{% set rest = messages %}{% set told = false %}{% endif %}\
{% if told != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + told + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in rest %}\
{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}\
{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}""",
    "qwen-tools": """{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- "# Tools\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(looking=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}{%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' }}{{- content }}{{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
{% set ns = namespace(is_first=false, is_tool=false, told='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}\
{% set ns.told = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.told}}{%- for message in messages %}\
{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}\
{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}\
{%- if not ns.is_first %}{{'<|Assistant|><|calls|><|call|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\n' + '```json' + '\n' + \
tool['function']['arguments'] + '\n' + '```' + '<|end_call|>'}}{%- set ns.is_first = true -%}{%- else %}{{'\n' + '<|call|>' + tool['type'] + '<|sep|>' + \
tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments'] + '\n' + '```' + '<|end_call|>'}}{%- endif %}{%- endfor %}\
{{'<|end_calls|>' + eos_token}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}\
{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}\
{{'<|Assistant|>' + content + eos_token}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}\
{{'<|outputs|><|output|>' + message['content'] + '<|end_output|>'}}{%- endif %}{%- endfor -%}\
{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|><think>\n'}}{% endif %}""",
    "generation": """{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- "<|im_start|>assistant\n" }}
        {% generation %}
        {{- message.content + "<|im_end|>" }}
        {% endgeneration %}
        {{- "\n" }}
    {%- else %}
        {{- "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\n" }}{%- endif %}
""",
    "macros": """{%- macro turn(role, text='', mark=true) -%}
{% if mark %}<|im_start|>{% endif %}{{ role | capitalize }}: {{ text | replace('\n', ' / ') | trim }}{{ caller() if caller else '' }}<|im_end|>
{% endmacro -%}
{%- macro spec(properties, indent=0) %}
{%- for name, value in properties | dictsort %}
{{ ' ' * indent }}- {{ name }}{{ '?' if name not in required | default([]) }}: {{ value.type if value.type is string else value.type | join('|') }}
{%- if value.enum is defined %} ({{ value.enum | map('string') | join(', ') }}){% endif %}
{%- endfor %}
{%- endmacro %}
{%- if tools %}
{%- set listed %}
{%- for tool in tools | sort(attribute='function.name') %}
* {{ tool.function.name | upper }} {{ tool.function.description | e }}{{ spec(tool.function.parameters.properties, indent=2) }}
{%- endfor %}
{%- endset %}
{{- turn('tools', listed | indent(2)) }}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{%- call turn(message.role, message.content or '') %} calls {{ message.tool_calls | map(attribute='function.name') | join(' and ') }}{% endcall %}
{%- elif loop.index is even %}
{{- turn(text=message.content, role=message.role) }}
{%- else %}
{{- turn(message.role, message.content, mark=not loop.first) }}
{%- endif %}
{%- if loop.previtem is defined and loop.previtem.role == message.role %}{% continue %}{% endif %}
{%- if loop.index > 20 %}{% break %}{% endif %}
{%- endfor %}
{%- filter upper %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}{% endfilter %}""",
}

SYSTEM = {"role": "system", "content": "Be brief.\n  Never lie. "}
CALL = {"role": "assistant", "content": None,
        "tool_calls": [{"type": "function", "id": "abc123def", "function": {"name": "get_weather", "arguments": {
            "city": "Zürich", "days": 2, "more": [1, 2.5, 1e-7, True, None, {"it's": "a \"b\"\\\n"}]}}}]}
ANSWER = {"role": "tool", "tool_call_id": "abc123def", "name": "get_weather", "content": "{\"degrees\": 21}"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CONVERSATIONS = {
    "one": [user("Hello")],
    "system": [SYSTEM, user(" Is the flat free?\n")],
    "turns": [user("a"), assistant("  b\n"), user("<|im_end|> c"), assistant("d")],
    "system-turns": [SYSTEM, user("Grüße 🙂"), assistant("<think>\nhm\n</think>\n\nyes"), user("Ω\t?"), assistant("nein"), user("")],
    "calls": [user("Weather?"), CALL, ANSWER, assistant("21 degrees."), user("Thanks")],
    "call": [SYSTEM, user("Weather?"), CALL],
    "order": [assistant("a"), user("b"), user("c")],
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a \"city\" – today & <later>", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Where"}, "days": {"type": ["integer", "null"], "minimum": 1.0, "enum": [1, 2]}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}},
]

VARIABLES = {"n": 7, "x": 2.5, "text": "Grüße an alle", "words": ["b", "A", "c"], "none_value": None,
             "people": [{"name": "Zoë", "age": 3}, {"name": "al", "age": 12}], "map": {"b": 1, "a": [True, None], "items": "hidden"}}
EXPRESSIONS = r"""
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 1 / 3 }} {{ 1e20 }} {{ 1.0 }} {{ 10 / 5 }} {{ 1e-7 }}
{{ 'a' ~ 1 ~ none ~ true ~ [1, 'x'] ~ {'k': "it's"} }}
{{ 'a' 'b' "c\n\t\\\x41\u00e9" }}
{{ text[0:3] }}|{{ text[-1] }}|{{ text[::-1] }}|{{ text[2] }}|{{ text[5:100] }}|{{ text[:-5] }}|{{ words[::2] }}|{{ words[-2:] }}|{{ words[5:] }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' in text }} {{ 'z' not in text }} {{ 'b' in words }} {{ 'b' in map }} {{ 1 == 1.0 }} {{ [1] == [1] }} {{ none == false }}
{{ not true or true and false }} {{ 0 or 'x' }} {{ '' and 'x' }} {{ n if n > 5 else x }} {{ 'y' if false }}|
{{ map.a }} {{ map['b'] }} {{ map.get('q', 5) }} {{ map.items() | list | length }} {{ map['items'] }} {{ map.missing is defined }} {{ people[0].name }} {{ people.1.age }}
{{ text | upper }} {{ text | lower }} {{ text | title }} {{ text | capitalize }} {{ text | length }} {{ 'a b-c' | title }} {{ "it's o'clock".title() }}
{{ text | replace('e', 'E') }} {{ text.replace('e', '3', 1) }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }}
{{ words | join(', ') }} {{ words | sort }} {{ words | sort(reverse=true, case_sensitive=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ words | first }} {{ words | last }} {{ words | reverse | list }}
{{ people | selectattr('age', 'gt', 5) | map(attribute='name') | join }} {{ people | rejectattr('name', 'equalto', 'al') | list | length }} {{ [0, 1, ''] | select | list }} {{ [1, 2, 3] | reject('odd') | list }}
{{ map | tojson }} {{ map | tojson(indent=2) }} {{ [1.0, 1e100, "ü\u2028</s>"] | tojson }} {{ "ü🙂" | tojson(ensure_ascii=true) }} {{ map | tojson(sort_keys=true, separators=(',', ':')) }} {{ [] | tojson(indent=1) }}
{{ map | dictsort }} {{ map | items | list }} {{ 'x' | default('y') }} {{ missing | default('y') }} {{ '' | default('y', true) }} {{ none_value | default('y') }} {{ missing is undefined }}
{{ '  a b  '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'a b c d'.split(none, 2) }} {{ 'a\nb\r\nc'.splitlines() }}
{{ text.startswith('Gr') }} {{ text.endswith(('x', 'alle')) }} {{ 'a-b'.find('-') }} {{ text.find('an') }} {{ 'aXbX'.count('X') }} {{ '12'.isdigit() }} {{ '-'.join(words) }} {{ '{} and {}'.format(1, 'b') }} {{ '{0}{1}{0} {name} {{'.format(1, 2, name='q') }}
{{ '%s is %d%%' % ('x', 5) }} {{ '%s' | format(text) }} {{ 'ab' * 3 }} {{ [1] * 2 }} {{ [1] + [2, 3] }} {{ (1, 'a') }} {{ (1,) }}
{{ '5' | int + 1 }} {{ 'x' | int(3) }} {{ '2.7' | int }} {{ '1.5' | float }} {{ -3 | abs }} {{ 2.567 | round(1) }} {{ 2.5 | round }} {{ [1, 2] | sum }} {{ [3, 1] | min }} {{ ['a', 'B'] | max }} {{ [1, 1, 2] | unique | list }} {{ 'a b' | wordcount }}
{{ 'line\n\nnext' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ '<a href="x">&\'' | escape }}|{{ 'x' | string }}|{{ [1, 'a'] | string }}|{{ range(5) | list }} {{ range(5, 1, -2) | list }}
{{ n is number }} {{ n is integer }} {{ x is float }} {{ true is boolean }} {{ text is string }} {{ map is mapping }} {{ words is sequence }} {{ words is iterable }} {{ n is odd }} {{ n is even }} {{ 9 is divisibleby 3 }} {{ none is none }} {{ n is not none }} {{ 3 is in [1, 3] }} {{ 'A' is upper }} {{ true is true }} {{ 1 is true }} {{ n is eq 7 }} {{ n is sameas 7 }} {{ range is callable }}
{% for a in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('x', 'y') }}{{ loop.previtem }}-{{ loop.nextitem }} {% else %}none{% endfor %}
{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}{% for k in map %}{{ k }}{% endfor %}{% for c in 'aü' %}[{{ c }}]{% endfor %}{% for a in [] %}{% else %}empty{% endfor %}
{% set y = 1 %}{% for a in [1, 2] %}{% set y = y + a %}{{ y }}{% endfor %}{{ y }}{% if true %}{% set y = 9 %}{% endif %}{{ y }}{% set p, q = 1, 2 %}{{ p + q }}{% with z = 5, w = y %}{{ z }}{{ w }}{% endwith %}{{ z is defined }}
{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{% set block %} x {{ n }} {% endset %}[{{ block }}]{% set t | upper %}abc{% endset %}{{ t }}
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(1, 2, 3, 4) }} {{ m(1, z=0) }} {{ m() }}
{% macro fact(i) %}{{ 1 if i < 2 else i * (fact(i - 1) | int) }}{% endmacro %}{{ fact(6) }}{% macro wrap() %}<{{ caller('q') }}>{% endmacro %}{% call(v) wrap() %}in {{ v }}{% endcall %}
{% raw %}{{ not run }} {% if %}{% endraw %} {# comment {{ x }} #}after
  {%- if true -%}  a  {%- endif -%}  b  {{- 'c' -}}  d
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{{ dict(a=1, b=none) }} {{ dict([('k', 2)]) }} {{ {'a': 1,}.a }} {{ {1: 'one'}[1] }} {{ [[1, 2], [3]] | map('length') | list }} {{ [1, 2, 3] | map('string') | join('+') }}
{{ missing }}|{{ map.missing }}|{{ words[9] }}|{{ missing is none }}|{{ none }}|{{ [] }}|{{ {} }}
{{ missing.attribute }}
{{ missing + 'a' }}
{{ 'a' + 1 }}
{{ none + 'a' }}
{{ words.append('d') }}
{{ map.update({'x': 1}) }}
{{ 1 // 0 }}
{{ raise_exception('no: ' + text) }}
{{ words | nosuchfilter }}
{{ words is nosuchtest }}
{{ nosuchfunction() }}
{% for a in 5 %}{% endfor %}
{% if true %}
{{ 'open }}
{% nosuchtag %}
{{ 1 + }}
{{ (1, 2 }}
{{ ''.__class__ }}|
{% set ns = namespace() %}{% set ns.__x = 1 %}
{{ strftime_now('%Y-%m-%d %H:%M') }} {{ n is defined and n > 3 }} {{ 'b' if n is defined else 'c' }} {{ (n > 3) | string }} {{ 3 * 'ab' | upper }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 7 - 2 - 1 }} {{ not n == 7 }}
""".strip("\n").split("\n")


def rendered(source, messages, tools, follows, special):
    try:
        return reference.render_jinja_template([copy.deepcopy(messages)], tools=tools, chat_template=source,
                                               add_generation_prompt=follows, **special)[0][0]
    except (jinja2.exceptions.TemplateError, TypeError):
        return None


def chat_template_of(path):
    field = gguf.GGUFReader(str(path)).get_field("tokenizer.chat_template")
    return bytes(field.parts[field.data[0]]).decode()


def main():
    own = chat_template_of(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL)
    cases = []
    for name, source in {**TEMPLATES, "": own}.items():
        special = {"bos_token": "<s>", "eos_token": "</s>"} if name else {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
        for conversation, messages in CONVERSATIONS.items():
            for follows in (True, False):
                for tools in (None, TOOLS):
                    if tools and conversation not in ("system", "calls", "call"):
                        continue
                    cases.append({"template": name, "conversation": conversation, "tools": tools is not None, "follows": follows,
                                  "out": rendered(source, messages, tools, follows, special)})
    expressions = []
    for source in EXPRESSIONS:
        try:
            out = reference._compile_jinja_template(source).render(**copy.deepcopy(VARIABLES))
        except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError, AttributeError):
            out = None
        expressions.append({"source": source, "out": out})
    path = pathlib.Path(__file__).parent / "data" / "chat_templates.json"
    path.write_text(json.dumps({"templates": TEMPLATES, "conversations": CONVERSATIONS, "tools": TOOLS, "now": NOW, "cases": cases,
                                "variables": VARIABLES, "expressions": expressions}, indent=0) + "\n")
    print(f"{len(cases)} cases, {sum(c['out'] is None for c in cases)} refused; {len(expressions)} expressions, "
          f"{sum(e['out'] is None for e in expressions)} refused; {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
