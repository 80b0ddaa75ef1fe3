#include "serve/response_format.h"

#include <fmt/format.h>

namespace tailor {
namespace {

using Kind = ConstraintSpec::Kind;

class Enforced final : public TokenConstraint {
 public:
  explicit Enforced(std::shared_ptr<const Constraint> constraint) : state_(std::move(constraint)) {}
  Status fill_mask(std::span<std::uint32_t> bits) override { return state_.fill_mask(bits); }
  Status accept(std::int32_t token) override { return state_.accept(token); }

 private:
  ConstraintState state_;
};

ConstraintSpec schema_spec(const Json& schema, std::string where) {
  return {.kind = Kind::kJsonSchema, .schema = schema, .text = {}, .choices = {}, .where = std::move(where)};
}

std::optional<ConstraintSpec> read_format(FieldReader& in, const Json& format) {
  FieldReader inner(format, "response_format");
  const std::string type = inner.required_text("type");
  std::optional<ConstraintSpec> out;
  if (type == "json_object") {
    out.emplace();  // llama.cpp's README has a schema here
    if (const Json* schema = inner.find("schema")) out = schema_spec(*schema, "response_format.schema");
  } else if (type == "json_schema") {
    if (const Json* wrapped = inner.find("json_schema")) {
      FieldReader named(*wrapped, "response_format.json_schema");
      for (const char* known : {"name", "strict"}) named.accept(known);  // a label; what is done in any case
      if (const Json* schema = named.find("schema"))
        out = schema_spec(*schema, "response_format.json_schema.schema");
      else
        named.fail("schema", "is missing", "missing_required_parameter");
      inner.join(named);
    } else if (const Json* schema = inner.find("schema")) {
      out = schema_spec(*schema, "response_format.schema");
    } else {
      inner.fail("json_schema", "is missing", "missing_required_parameter");
    }
  } else if (!inner.error() && type != "text") {
    inner.fail("type", fmt::format("'{}' is none of text, json_object, json_schema", type.substr(0, 64)),
               "unsupported_parameter");
  }
  in.join(inner);
  return out;
}

/// "json", "regex", "choice", "grammar" and "json_object" of `in`, each with the prefix.
void read_guided(FieldReader& in, const std::string& prefix, std::vector<ConstraintSpec>& out) {
  if (const Json* schema = in.find(prefix + "json")) {
    // As a text it has a limit of its own: its brackets are not those of the request.
    const Result<Json> parsed =
        schema->is_string() ? parse_json(schema->get_ref<const std::string&>(), "schema") : Result<Json>(*schema);
    if (!parsed.has_value()) return in.fail(prefix + "json", "expected a JSON schema");
    out.push_back(schema_spec(*parsed, in.path_of(prefix + "json")));
  }
  if (in.has(prefix + "regex"))
    out.push_back({.kind = Kind::kRegex,
                   .schema = {},
                   .text = in.text(prefix + "regex"),
                   .choices = {},
                   .where = in.path_of(prefix + "regex")});
  if (in.has(prefix + "choice"))
    out.push_back({.kind = Kind::kChoices,
                   .schema = {},
                   .text = {},
                   .choices = in.texts(prefix + "choice", 10'000, 65'536),
                   .where = in.path_of(prefix + "choice")});
  if (in.has(prefix + "grammar"))
    out.push_back({.kind = Kind::kGrammar,
                   .schema = {},
                   .text = in.text(prefix + "grammar"),
                   .choices = {},
                   .where = in.path_of(prefix + "grammar")});
  if (in.boolean(prefix + "json_object", false)) out.emplace_back();
}

}  // namespace

std::optional<ConstraintSpec> read_constraint(FieldReader& in) {
  std::vector<ConstraintSpec> asked;
  if (const Json* format = in.find("response_format")) {
    if (auto spec = read_format(in, *format)) asked.push_back(std::move(*spec));
  }
  if (const Json* outputs = in.find("structured_outputs")) {
    FieldReader inner(*outputs, "structured_outputs");
    read_guided(inner, "", asked);
    for (const std::string& name : inner.unread())
      inner.fail(ApiError::invalid(name, fmt::format("'{}' cannot be enforced", name), "unsupported_parameter"));
    if (inner.error()) in.fail(*inner.error());
  }
  read_guided(in, "guided_", asked);
  if (const Json* schema = in.find("json_schema")) asked.push_back(schema_spec(*schema, "json_schema"));
  if (in.has("grammar"))
    asked.push_back(
        {.kind = Kind::kGrammar, .schema = {}, .text = in.text("grammar"), .choices = {}, .where = "grammar"});
  if (asked.size() > 1)
    in.fail(
        ApiError::invalid("response_format", "an answer can follow one format, and the request names more than one"));
  if (in.error() || asked.empty()) return std::nullopt;
  return asked[0];
}

ConstraintFactory constraint_factory(std::shared_ptr<const Constraint> constraint) {
  return [constraint = std::move(constraint)]() -> Result<std::unique_ptr<TokenConstraint>> {
    return std::unique_ptr<TokenConstraint>(std::make_unique<Enforced>(constraint));
  };
}

}  // namespace tailor
