#include "host/vm/abilities.h"

#include "ipc/rpc/connection.h"
#include "vmmhost/schema/error.capnp.h"

namespace vmmhost::vm {
namespace {

constexpr std::chrono::seconds kTimeout{10};

// Each result has an error, which is null on success.
constexpr char kError[] = "error";

bool isCapability(capnp::StructSchema::Field field) {
  return field.getType().isInterface();
}

// Field by field, so that nothing but what both sides know is passed on. A capability that a worker answers with is
// left out: results are data. (Of a result's own fields; none has a struct with a capability in it.)
enum class Capabilities { kPassed, kLeftOut };
void copy(capnp::DynamicStruct::Reader from, capnp::DynamicStruct::Builder to, Capabilities capabilities) {
  for (const auto field : from.getSchema().getNonUnionFields()) {
    if (from.has(field) && !(capabilities == Capabilities::kLeftOut && isCapability(field))) {
      to.set(field, from.get(field));
    }
  }
  KJ_IF_MAYBE (field, from.which()) {
    to.set(*field, from.get(*field));
  }
}

}  // namespace

class Abilities::Gate final : public capnp::DynamicCapability::Server {
 public:
  Gate(std::shared_ptr<Abilities*> abilities, capnp::DynamicCapability::Client worker)
      : Server(worker.getSchema()), abilities_(std::move(abilities)), worker_(kj::mv(worker)) {}

  kj::Promise<void> call(capnp::InterfaceSchema::Method method,
                         capnp::CallContext<capnp::DynamicStruct, capnp::DynamicStruct> context) override {
    return kj::evalNow(rpc::guarded([&]() { return forward(method, context); }))
        .catch_([context](kj::Exception&& exception) mutable {
          auto error = context.getResults().init(kError).as<capnp::DynamicStruct>();
          rpc::writeError(rpc::fromKj(exception), error.as<schema::Error>());
        });
  }

 private:
  kj::Promise<void> forward(capnp::InterfaceSchema::Method method,
                            capnp::CallContext<capnp::DynamicStruct, capnp::DynamicStruct> context) {
    if (*abilities_ == nullptr) {
      throw Error(ErrorCode::kFailedPrecondition, "the VM has ended");
    }
    AbilityOwner& owner = (*abilities_)->owner_;
    const AnyRule& rule = ruleOf(method);
    const std::string ownName = method.getProto().getName().cStr();
    owner.requireAnswering(rule.verb != nullptr ? rule.verb : ownName);
    if (rule.check) {
      rule.check(context.getParams());
    }
    auto request = worker_.newRequest(method);
    copy(context.getParams(), request, Capabilities::kPassed);
    auto answered = request.send().then(rpc::guarded([abilities = abilities_, &rule, context](auto&& response) mutable {
      const capnp::DynamicStruct::Reader results = response;
      if (results.has(kError)) {
        throw rpc::readError(results.get(kError).as<capnp::DynamicStruct>().as<schema::Error>());
      }
      copy(results, context.getResults(), Capabilities::kLeftOut);
      if (*abilities != nullptr && !(*abilities)->owner_.isEnding() && rule.done) {
        rule.done(context.getParams(), context.getResults());
      }
    }));
    const std::string doing = rule.doing != nullptr ? rule.doing : ownName;
    return rpc::withDeadline(owner.timer(), kTimeout, doing, kj::mv(answered))
        .catch_([abilities = abilities_](kj::Exception&& exception) -> kj::Promise<void> {
          if (*abilities == nullptr) {
            return kj::mv(exception);
          }
          return (*abilities)->owner_.explain(kj::mv(exception)).then([](const Error& error) {
            return rpc::fail(error);
          });
        });
  }

  const AnyRule& ruleOf(capnp::InterfaceSchema::Method method) const {
    static const AnyRule kNone{nullptr, nullptr, {}, {}};
    const auto& rules = (*abilities_)->rules_;
    const auto found = rules.find({method.getContainingInterface().getProto().getId(), method.getOrdinal()});
    return found == rules.end() ? kNone : found->second;
  }

  std::shared_ptr<Abilities*> abilities_;
  capnp::DynamicCapability::Client worker_;
};

Abilities::Abilities(AbilityOwner& owner) : owner_(owner), self_(std::make_shared<Abilities*>(this)) {
}

Abilities::~Abilities() {
  *self_ = nullptr;
}

void Abilities::take(schema::Abilities::Reader offered) {
  const capnp::DynamicStruct::Reader all = offered;
  for (const auto field : all.getSchema().getFields()) {
    if (!isCapability(field) || !all.has(field)) {
      continue;
    }
    auto worker = all.get(field).as<capnp::DynamicCapability>();
    const std::uint64_t type = worker.getSchema().getProto().getId();
    gates_.insert_or_assign(type, capnp::DynamicCapability::Client(kj::heap<Gate>(self_, kj::mv(worker))));
  }
}

capnp::DynamicCapability::Client* Abilities::gateOf(const plugin::Ability& ability) {
  if (ability.field == nullptr) {
    return nullptr;
  }
  const auto field = capnp::Schema::from<schema::Abilities>().getFieldByName(ability.field);
  const auto found = gates_.find(field.getType().asInterface().getProto().getId());
  return found == gates_.end() ? nullptr : &found->second;
}

std::vector<const char*> Abilities::shown() {
  std::vector<const char*> names;
  for (const plugin::Ability& ability : plugin::kAbilities) {
    if (gateOf(ability) != nullptr) {
      names.push_back(ability.shown);
    }
  }
  return names;
}

void Abilities::handOut(schema::Abilities::Builder out) {
  capnp::DynamicStruct::Builder all = out;
  for (const plugin::Ability& ability : plugin::kAbilities) {
    auto* const gate = gateOf(ability);
    if (ability.isHandedOut && gate != nullptr) {
      all.set(ability.field, *gate);
    }
  }
}

capnp::DynamicCapability::Client Abilities::find(std::uint64_t type, const char* verb) {
  owner_.requireAnswering(verb);
  const auto found = gates_.find(type);
  if (found != gates_.end()) {
    return found->second;
  }
  const auto name = names_.find(type);
  throw Error(ErrorCode::kUnsupported,
              std::string(verb) + ": backend " + owner_.backend() + " " +
                  (name == names_.end() ? "does not do that for this VM" : name->second.lacks),
              name == names_.end() ? "" : name->second.hint);
}

}  // namespace vmmhost::vm
