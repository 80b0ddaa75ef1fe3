#include "config/translation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "config/value.h"

namespace tailor {
namespace {

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : static_cast<char>(c);
  });
  return text;
}

using Words = std::vector<std::pair<std::string_view, std::string_view>>;  // theirs in upper case, ours

/// The word that ours is for theirs; an error that lists theirs otherwise.
std::optional<std::string> word_of(ConfigReader& reader, const ConfigItem& item, const Words& words) {
  std::string known;
  for (const auto& [theirs, ours] : words) {
    if (item.value->kind == YamlNode::Kind::kScalar && upper(item.value->text) == theirs) return std::string(ours);
    known += (known.empty() ? "" : ", ") + std::string(theirs);
  }
  reader.wrong(item, "one of " + known);
  return {};
}

std::optional<double> number_of(ConfigReader& reader, const ConfigItem& item, double low, bool whole,
                                std::string_view expected) {
  const auto x = plain_number(*item.value);
  if (x && *x >= low && *x <= 1e9 && (!whole || std::floor(*x) == *x)) return x;
  reader.wrong(item, expected);
  return {};
}

std::optional<bool> flag_of(ConfigReader& reader, const ConfigItem& item) {
  const auto flag = plain_flag(*item.value);
  if (!flag) reader.wrong(item, "true or false");
  return flag;
}

void keep_number(ConfigReader& reader, const ConfigItem& item, std::optional<ConfigReader::Number>& to, double low,
                 std::string_view expected) {
  const auto x = number_of(reader, item, low, true, expected);
  if (!x) return;
  if (to && to->value != *x) {
    reader.refuse(item, fmt::format("says {}, but {} says {} ({})", *x, to->item.name, to->value, to->item.where));
    return;
  }
  to = ConfigReader::Number{item, *x};
}

/// A file with examples; a name in a registry of data sets is none.
void data_file(ConfigReader& reader, const ConfigItem& item, std::string_view key, std::string_view tools) {
  static constexpr std::array<std::string_view, 4> kEndings = {".jsonl", ".json", ".csv", ".tsv"};
  const bool text = item.value->kind == YamlNode::Kind::kScalar;
  const std::string ending = text ? std::filesystem::path(item.value->text).extension().string() : "";
  if (std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end()) return reader.read(key, item, tools, true);
  reader.wrong(item, "a file (.jsonl, .json, .csv)", "names of data sets are not looked up here");
}

/// Axolotl: a list of data sets, each a map.
void data_list(ConfigReader& reader, const ConfigItem& item, std::string_view key) {
  const YamlNode& list = *item.value;
  if (list.kind != YamlNode::Kind::kList || list.items.size() != 1 || list.items[0].kind != YamlNode::Kind::kMap) {
    return reader.wrong(item, "a list of one data set with its path", "put all examples into one file");
  }
  bool named = false;
  for (const YamlEntry& entry : list.items[0].entries) {
    const std::size_t colon = item.where.rfind(':');
    const ConfigItem part{item.name + "." + entry.name, &entry.value,
                          fmt::format("{}:{}", item.where.substr(0, colon), entry.line)};
    if (entry.name == "path") {
      named = true;
      data_file(reader, part, key, "Axolotl");
    } else if (entry.name == "type" || entry.name == "ds_type" || entry.name == "chat_template") {
      reader.note(fmt::format("{}: {}: the shape of the data is recognised, the model's own chat template is used",
                              part.where, part.name));
    } else if (entry.value.kind != YamlNode::Kind::kNull) {
      reader.refuse(part, "is not known here", "the shape of the data is recognised from the file");
    }
  }
  if (!named) reader.wrong(item, "a list of one data set with its path");
}

void held_out(ConfigReader& reader, const ConfigItem& item) {
  const auto x = plain_number(*item.value);
  if (x && *x == 0) {
    return reader.refuse(item, "is 0, but rows for validation choose the values that are kept",
                         "leave it out, or name a file: validation: dev.jsonl");
  }
  if (x && *x > 1) return reader.wrong(item, "a share of the rows, not a count");
  reader.read("validation_fraction", item, "Axolotl, LLaMA-Factory");
}

void soft_encoder(ConfigReader& reader, const ConfigItem& item) {
  if (const auto word = word_of(reader, item, {{"MLP", "mlp"}, {"LSTM", "lstm"}}))
    reader.give("soft_prompt.encoder", *word, item, "PEFT");
}

void thinking(ConfigReader& reader, const ConfigItem& item) {
  if (const auto flag = flag_of(reader, item))
    reader.give("template_variables", Json{{"enable_thinking", *flag}}, item, "LLaMA-Factory");
}

void prompt_init(ConfigReader& reader, const ConfigItem& item) {
  // TEXT: prompt_tuning_init_text says which, and goes before
  const auto word = word_of(reader, item, {{"TEXT", "labels"}, {"RANDOM", "random"}, {"SAMPLE_VOCAB", "vocabulary"}});
  if (word) reader.give("soft_prompt.init", *word, item, "PEFT");
}

void peft_type(ConfigReader& reader, const ConfigItem& item) {
  const auto method = word_of(reader, item,
                              {{"LORA", "lora"},
                               {"IA3", "ia3"},
                               {"PROMPT_TUNING", "prompt-tuning"},
                               {"P_TUNING", "p-tuning"},
                               {"PREFIX_TUNING", "prefix-tuning"}});
  if (!method) return;
  if (*method == "lora")
    reader.family = ConfigReader::Word{item, "lora"};
  else
    reader.give("method", *method, item, "PEFT");
}

void finetuning_type(ConfigReader& reader, const ConfigItem& item) {
  const auto method = word_of(reader, item, {{"LORA", "lora"}, {"FULL", "full"}, {"FREEZE", "upper-layers"}});
  if (!method) return;
  if (*method == "lora")
    reader.family = ConfigReader::Word{item, "lora"};
  else
    reader.give("method", *method, item, "LLaMA-Factory");
}

void adapter_word(ConfigReader& reader, const ConfigItem& item) {
  const auto method = word_of(reader, item, {{"LORA", "lora"}, {"QLORA", "qlora"}});
  if (!method) return;
  if (*method == "lora")
    reader.family = ConfigReader::Word{item, "lora"};
  else
    reader.give("method", "qlora", item, "Axolotl");
}

void use_peft(ConfigReader& reader, const ConfigItem& item) {
  const auto flag = flag_of(reader, item);
  if (!flag) return;
  if (*flag)
    reader.family = ConfigReader::Word{item, "lora"};
  else
    reader.give("method", "full", item, "TRL");
}

void four_bits(ConfigReader& reader, const ConfigItem& item) {
  const auto flag = flag_of(reader, item);
  if (!flag) return;
  if (*flag)
    reader.four_bit = ConfigReader::Word{item, "true"};
  else
    reader.neutral(item);
}

void quantisation_bits(ConfigReader& reader, const ConfigItem& item) {
  const auto x = plain_number(*item.value);
  if (!x || *x != 4) return reader.wrong(item, "4", "other widths are had by method qlora on a GGUF file of that type");
  reader.four_bit = ConfigReader::Word{item, "true"};
}

void lora_start(ConfigReader& reader, const ConfigItem& item) {
  const YamlNode& value = *item.value;
  if (plain_flag(value) == true || (value.kind == YamlNode::Kind::kScalar && value.text == "gaussian"))
    return reader.neutral(item);
  if (value.kind == YamlNode::Kind::kScalar && value.text.starts_with("pissa"))
    return reader.give("lora.pissa", true, item, "PEFT");
  reader.wrong(item, "true or pissa", "other starts are not there");
}

void lora_target(ConfigReader& reader, const ConfigItem& item) {
  if (item.value->kind == YamlNode::Kind::kScalar && item.value->text == "all")
    return reader.give("lora.target_modules", Json::array({"all-linear"}), item, "LLaMA-Factory");
  reader.read("lora.target_modules", item, "LLaMA-Factory");
}

void target_linear(ConfigReader& reader, const ConfigItem& item) {
  const auto flag = flag_of(reader, item);
  if (!flag) return;
  if (*flag)
    reader.give("lora.target_modules", Json::array({"all-linear"}), item, "Axolotl");
  else
    reader.neutral(item);
}

void scheduler(ConfigReader& reader, const ConfigItem& item) {
  const auto word = word_of(
      reader, item,
      {{"LINEAR", "linear"}, {"COSINE", "cosine"}, {"CONSTANT", "constant"}, {"CONSTANT_WITH_WARMUP", "constant"}});
  if (word) reader.give("schedule", *word, item, "TRL, Axolotl, LLaMA-Factory");
}

void optimiser(ConfigReader& reader, const ConfigItem& item) {
  if (item.value->kind == YamlNode::Kind::kScalar && item.value->text.find("adamw") != std::string::npos) {
    const bool plain = item.value->text.find("bit") == std::string::npos;
    return plain ? reader.neutral(item)
                 : reader.note(fmt::format("{}: {}: AdamW keeps its moments in 32 bits here", item.where, item.name));
  }
  reader.wrong(item, "adamw or one of its kind", "AdamW is the optimiser here");
}

/// What weights are loaded as. "f32" and "bf16" are our own words.
void storage(ConfigReader& reader, const ConfigItem& item) {
  const bool ours = item.name == "dtype" && item.value->kind == YamlNode::Kind::kScalar &&
                    (item.value->text == "f32" || item.value->text == "bf16");
  if (ours) return reader.read("dtype", item, "");
  const auto word = word_of(reader, item,
                            {{"FLOAT32", "f32"},
                             {"F32", "f32"},
                             {"FP32", "f32"},
                             {"BFLOAT16", "bf16"},
                             {"BF16", "bf16"},
                             {"FLOAT16", "f16"},
                             {"F16", "f16"},
                             {"FP16", "f16"},
                             {"AUTO", "auto"}});
  if (!word) return;
  if (*word == "f32" || *word == "bf16")
    reader.storage = ConfigReader::Word{item, *word};
  else
    reader.note(fmt::format("{}: {} changes nothing: frozen matrices are 32-bit floats, or dtype: bf16", item.where,
                            item.name));
}

void half_floats(ConfigReader& reader, const ConfigItem& item) {
  const auto word = word_of(reader, item, {{"TRUE", "true"}, {"FULL", "true"}, {"FALSE", "false"}, {"AUTO", "auto"}});
  if (word && *word == "true")
    reader.half_floats = ConfigReader::Word{item, "true"};
  else if (word && *word == "false")
    reader.neutral(item);
  else if (word)
    reader.note(fmt::format("{}: {} changes nothing: frozen matrices are 32-bit floats, or dtype: bf16", item.where,
                            item.name));
}

void checkpointing(ConfigReader& reader, const ConfigItem& item) {
  const auto word = word_of(
      reader, item,
      {{"TRUE", "true"}, {"FALSE", "false"}, {"OFFLOAD", "true"}, {"OFFLOAD_DISK", "true"}, {"UNSLOTH", "true"}});
  if (word) reader.give("activation_checkpointing", *word == "true", item, "TRL, Axolotl, LLaMA-Factory");
}

void no_checkpointing(ConfigReader& reader, const ConfigItem& item) {
  if (const auto flag = flag_of(reader, item)) reader.give("activation_checkpointing", !*flag, item, "LLaMA-Factory");
}

/// A share below 1 is a ratio (Transformers 5), anything else a count.
void warmup(ConfigReader& reader, const ConfigItem& item) {
  const auto x = plain_number(*item.value);
  if (x && *x >= 0 && *x < 1) return reader.read("warmup_ratio", item, "TRL, Axolotl, LLaMA-Factory");
  keep_number(reader, item, reader.warmup_steps, 0, "a whole number of steps, or a share below 1");
}

void metric(ConfigReader& reader, const ConfigItem& item) {
  const auto word = word_of(reader, item,
                            {{"LOSS", "loss"},
                             {"EVAL_LOSS", "loss"},
                             {"ACCURACY", "accuracy"},
                             {"EVAL_ACCURACY", "accuracy"},
                             {"F1", "macro_f1"},
                             {"EVAL_F1", "macro_f1"},
                             {"MACRO_F1", "macro_f1"},
                             {"EVAL_MACRO_F1", "macro_f1"}});
  if (word) reader.give("metric", *word, item, "TRL, Axolotl, LLaMA-Factory");
}

void strategy(ConfigReader& reader, const ConfigItem& item) {
  const auto word =
      word_of(reader, item, {{"EPOCH", "epoch"}, {"STEPS", "steps"}, {"NO", "no"}, {"FALSE", "no"}});  // YAML 1.1: no
  if (word) reader.eval_strategy = ConfigReader::Word{item, *word};
}

/// Ours joins columns and has braces; LLaMA-Factory's names a chat template.
void template_word(ConfigReader& reader, const ConfigItem& item) {
  const YamlNode& value = *item.value;
  if (value.kind != YamlNode::Kind::kScalar) return reader.wrong(item, "a text");
  if (value.text.find('{') != std::string::npos) return reader.read("text_template", item, "");
  reader.note(fmt::format("{}: {}: the model's own chat template is used, for training as for answering", item.where,
                          item.name));
}

std::vector<Translation> make_translations() {
  constexpr std::string_view kText = R"({"type": "string"})", kFlag = R"({"type": "boolean"})";
  constexpr std::string_view kCount = R"({"type": "integer", "minimum": 1})";
  constexpr std::string_view kShare = R"({"type": "number", "minimum": 0.01, "maximum": 0.9})";
  constexpr std::string_view kDatasets =
      R"({"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object", "required": ["path"]}})";
  const auto micro = [](ConfigReader& r, const ConfigItem& i) {
    keep_number(r, i, r.micro_batch, 1, "a whole number from 1");
  };
  const auto train_data = [](ConfigReader& r, const ConfigItem& i) { data_file(r, i, "data", "LLaMA-Factory"); };
  const auto held_data = [](ConfigReader& r, const ConfigItem& i) { data_file(r, i, "validation", "LLaMA-Factory"); };
  return {
      {"datasets", "Axolotl", "data", kDatasets, [](ConfigReader& r, const ConfigItem& i) { data_list(r, i, "data"); }},
      {"test_datasets", "Axolotl", "validation", kDatasets,
       [](ConfigReader& r, const ConfigItem& i) { data_list(r, i, "validation"); }},
      {"dataset", "LLaMA-Factory", "data, where it names a file", kText, train_data},
      {"eval_dataset", "LLaMA-Factory", "validation, where it names a file", kText, held_data},
      {"val_set_size", "Axolotl", "validation_fraction", kShare, held_out},
      {"val_size", "LLaMA-Factory", "validation_fraction", kShare, held_out},
      {"template", "LLaMA-Factory", "text_template, where it holds {column}; otherwise a note", kText, template_word},
      {"micro_batch_size", "Axolotl", "batch_size, times gradient_accumulation_steps", kCount, micro},
      {"per_device_train_batch_size", "TRL, LLaMA-Factory", "batch_size, times gradient_accumulation_steps", kCount,
       micro},
      {"gradient_accumulation_steps", "TRL, Axolotl, LLaMA-Factory", "a factor of batch_size", kCount,
       [](ConfigReader& r, const ConfigItem& i) { keep_number(r, i, r.accumulation, 1, "a whole number from 1"); }},
      {"peft_type", "PEFT", "method", R"({"enum": ["LORA", "IA3", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"]})",
       peft_type},
      {"finetuning_type", "LLaMA-Factory", "method (freeze: upper-layers)", R"({"enum": ["lora", "full", "freeze"]})",
       finetuning_type},
      {"adapter", "Axolotl", "method", R"({"enum": ["lora", "qlora"]})", adapter_word},
      {"use_peft", "TRL", "method lora or full", kFlag, use_peft},
      {"load_in_4bit", "TRL, Axolotl", "method qlora", kFlag, four_bits},
      {"quantization_bit", "LLaMA-Factory", "method qlora", R"({"const": 4})", quantisation_bits},
      {"init_lora_weights", "PEFT", "lora.pissa", R"({"anyOf": [{"const": true}, {"type": "string"}]})", lora_start},
      {"lora_target", "LLaMA-Factory", "lora.target_modules",
       R"({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})", lora_target},
      {"lora_target_linear", "Axolotl", "lora.target_modules all-linear", kFlag, target_linear},
      {"lr_scheduler_type", "TRL, LLaMA-Factory", "schedule",
       R"({"enum": ["linear", "cosine", "constant", "constant_with_warmup"]})", scheduler},
      {"lr_scheduler", "Axolotl", "schedule", R"({"enum": ["linear", "cosine", "constant", "constant_with_warmup"]})",
       scheduler},
      {"optim", "TRL, LLaMA-Factory", "AdamW alone", R"({"type": "string", "pattern": "adamw"})", optimiser},
      {"optimizer", "Axolotl", "AdamW alone", R"({"type": "string", "pattern": "adamw"})", optimiser},
      {"dtype", "TRL, LLaMA-Factory", "dtype f32 or bf16; where no matrix is frozen, a note",
       R"({"enum": ["float32", "fp32", "bfloat16", "float16", "fp16", "f16", "auto"]})", storage},
      {"torch_dtype", "TRL, Axolotl", "dtype f32 or bf16; where no matrix is frozen, a note",
       R"({"enum": ["float32", "f32", "fp32", "bfloat16", "bf16", "float16", "f16", "fp16", "auto"]})", storage},
      {"bf16", "TRL, Axolotl, LLaMA-Factory", "dtype bf16; where no matrix is frozen, a note",
       R"({"enum": [true, false, "auto", "full"]})", half_floats},
      {"bfloat16", "Axolotl", "dtype bf16; where no matrix is frozen, a note", kFlag, half_floats},
      {"pure_bf16", "LLaMA-Factory", "dtype bf16; where no matrix is frozen, a note", kFlag, half_floats},
      {"gradient_checkpointing", "TRL, Axolotl", "activation_checkpointing",
       R"({"enum": [true, false, "offload", "offload_disk", "unsloth"]})", checkpointing},
      {"disable_gradient_checkpointing", "LLaMA-Factory", "activation_checkpointing, the other way round", kFlag,
       no_checkpointing},
      {"warmup_steps", "TRL, Axolotl, LLaMA-Factory", "warmup_ratio, with max_steps or as a share below 1",
       R"({"type": "number", "minimum": 0})", warmup},
      {"metric_for_best_model", "TRL, Axolotl, LLaMA-Factory", "metric",
       R"({"enum": ["loss", "eval_loss", "accuracy", "eval_accuracy", "f1", "eval_f1", "macro_f1", "eval_macro_f1"]})",
       metric},
      {"eval_strategy", "TRL, Axolotl, LLaMA-Factory", "evaluate_every_epochs, evaluate_every_steps",
       R"({"enum": ["epoch", "steps", "no", false]})", strategy},
      {"evaluation_strategy", "Axolotl, LLaMA-Factory", "evaluate_every_epochs, evaluate_every_steps",
       R"({"enum": ["epoch", "steps", "no", false]})", strategy},
      {"eval_steps", "TRL, Axolotl, LLaMA-Factory", "evaluate_every_steps", kCount,
       [](ConfigReader& r, const ConfigItem& i) {
         keep_number(r, i, r.eval_steps, 1, "a whole number of steps from 1");
       }},
      {"evals_per_epoch", "Axolotl", "evaluate_every_epochs", kCount,
       [](ConfigReader& r, const ConfigItem& i) { keep_number(r, i, r.evals_per_epoch, 1, "a whole number from 1"); }},
      {"enable_thinking", "LLaMA-Factory", "template_variables enable_thinking", kFlag, thinking},
      {"encoder_reparameterization_type", "PEFT", "soft_prompt.encoder", R"({"enum": ["MLP", "LSTM"]})", soft_encoder},
      {"prompt_tuning_init", "PEFT", "soft_prompt.init", R"({"enum": ["TEXT", "RANDOM", "SAMPLE_VOCAB"]})",
       prompt_init},
  };
}

}  // namespace

const std::vector<Translation>& translations() {
  static const std::vector<Translation> kTranslations = make_translations();
  return kTranslations;
}

const Translation* find_translation(std::string_view name) {
  for (const Translation& known : translations()) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

}  // namespace tailor
