#include "config/tune_config.h"
#include "fuzz.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {
      "base_model: m\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\nlora: {alpha: 16, target_modules: [a, b]}\n"
      "datasets:\n  - path: a.jsonl\n    type: alpaca\nmicro_batch_size: 2\ngradient_accumulation_steps: 4\n",
      "learning_rate: 2e-4\nepochs: 3\nseed: 1\nbf16: auto\nbias: none\neval_strategy: steps\neval_steps: 5\n",
      R"({"peft_type": "LORA", "r": 8, "target_modules": ["q"], "loftq_config": {}, "modules_to_save": null})",
      "text: [a, \"b\"]\nlabel: 'c'\ntext_template: |\n  {a}\n  {b}\nwarmup_steps: 3\nmax_steps: 30\n",
      "method: lorra\nmethod: dora\nlerning_rate: x\nval_set_size: 0\noptim: sgd\n? [k]\n: v\n",
  };
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto root = tailor::parse_yaml(bytes, "fuzz.yaml");
  if (!root) return 0;
  tailor::TuneConfig config = tailor::read_tune_config(*root, "fuzz.yaml");
  // Every key of the top level left something behind: a setting, a note or an error.
  std::size_t said = config.errors.size() + config.notes.size() + config.given.size();
  if (!root->entries.empty() && said == 0 && root->entries[0].value.kind != tailor::YamlNode::Kind::kMap)
    __builtin_trap();
  tailor::check_together(config);
  const tailor::Json options = tailor::options_of(config);
  if (options.size() > config.given.size()) __builtin_trap();
  return 0;
}
