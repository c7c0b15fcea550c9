// What a VM can do beyond starting and stopping: its worker's abilities, behind one gate for whoever uses them.
#pragma once

#include <capnp/dynamic.h>
#include <capnp/schema.h>
#include <kj/async-io.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/plugin/abilities.h"
#include "vmmhost/error.h"
#include "vmmhost/schema/worker.capnp.h"

namespace vmmhost::vm {

// The VM, as the gate sees it.
class AbilityOwner {
 public:
  // Throws Error where it cannot be asked to `verb` ("pause") or where the worker would not answer.
  virtual void requireAnswering(const std::string& verb) const = 0;
  // Whether its end has begun: what a worker answers then changes nothing any more.
  virtual bool isEnding() const = 0;
  virtual const std::string& backend() const = 0;
  virtual kj::Timer& timer() = 0;
  // A failed call on the worker as the error to report.
  virtual kj::Promise<Error> explain(kj::Exception exception) = 0;

 protected:
  ~AbilityOwner() = default;
};

class Abilities {
 public:
  explicit Abilities(AbilityOwner& owner);
  ~Abilities();  // what was handed out is of no use then
  Abilities(const Abilities&) = delete;
  Abilities& operator=(const Abilities&) = delete;

  // What a worker has none of, in the words of an error: "backend kvm LACKS".
  template <typename Ability>
  void name(const char* lacks, const char* hint = "") {
    names_[capnp::typeId<Ability>()] = {lacks, hint};
  }

  // What a method is called in errors, and what the VM itself makes of it. A method without a rule goes by its own
  // name.
  template <typename Params, typename Results>
  struct Rule {
    const char* verb = nullptr;                          // "cannot VERB a VM that is paused"
    const char* doing = nullptr;                         // what takes too long where the worker does not answer
    std::function<void(typename Params::Reader)> check;  // throws Error for what is not to reach the worker
    // When the worker has done it, and the VM has not ended meanwhile; may change the results.
    std::function<void(typename Params::Reader, typename Results::Builder)> done;
  };
  template <typename Ability, typename Params, typename Results>
  void rule(const char* method, Rule<Params, Results> rule) {
    AnyRule any{rule.verb, rule.doing, {}, {}};
    if (rule.check) {
      any.check = [check = std::move(rule.check)](capnp::DynamicStruct::Reader params) { check(params.as<Params>()); };
    }
    if (rule.done) {
      any.done = [done = std::move(rule.done)](capnp::DynamicStruct::Reader params,
                                               capnp::DynamicStruct::Builder results) {
        done(params.as<Params>(), results.as<Results>());
      };
    }
    const auto found = capnp::Schema::from<Ability>().getMethodByName(method);
    rules_[{capnp::typeId<Ability>(), found.getOrdinal()}] = std::move(any);
  }

  // What the worker offers. Once.
  void take(schema::Abilities::Reader offered);
  template <typename Ability>
  bool has() const {
    return gates_.count(capnp::typeId<Ability>()) > 0;
  }
  // Those of the table that there are, as `inspect` shows them.
  std::vector<const char*> shown();

  // An ability behind its gate: each call is looked at, has a deadline, and answers with an Error in its result where
  // anything goes wrong. Throws where the VM cannot be asked to `verb`, or cannot do it.
  template <typename Ability>
  typename Ability::Client get(const char* verb) {
    return find(capnp::typeId<Ability>(), verb).template as<Ability>();
  }
  // All that others may have, for a client.
  void handOut(schema::Abilities::Builder out);

 private:
  class Gate;
  struct AnyRule {
    const char* verb;
    const char* doing;
    std::function<void(capnp::DynamicStruct::Reader)> check;
    std::function<void(capnp::DynamicStruct::Reader, capnp::DynamicStruct::Builder)> done;
  };
  struct Name {
    const char* lacks;
    const char* hint;
  };
  capnp::DynamicCapability::Client find(std::uint64_t type, const char* verb);
  capnp::DynamicCapability::Client* gateOf(const plugin::Ability& ability);  // null: the worker has none

  AbilityOwner& owner_;
  std::shared_ptr<Abilities*> self_;  // null inside once this is gone
  std::map<std::uint64_t, Name> names_;
  std::map<std::pair<std::uint64_t, std::uint16_t>, AnyRule> rules_;
  std::map<std::uint64_t, capnp::DynamicCapability::Client> gates_;  // by the type of their interface
};

}  // namespace vmmhost::vm
