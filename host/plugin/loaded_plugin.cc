#include "host/plugin/loaded_plugin.h"

#include <capnp/message.h>

#include "host/base/text.h"
#include "host/config/json.h"
#include "host/config/plugin_view.h"
#include "host/plugin/launch_plan.h"

namespace vmmhost::plugin {
namespace {

class LoadedPlugin final : public Plugin {
 public:
  LoadedPlugin(Library library, std::string path, std::vector<std::string> configFields, LogSink sink)
      : library_(std::move(library)),
        path_(std::move(path)),
        configFields_(std::move(configFields)),
        sink_(std::move(sink)) {}

  const std::string& name() const override { return library_.name; }
  const std::string& version() const override { return library_.version; }
  const std::string& path() const override { return path_; }

  void validate(schema::VmConfig::Reader config) override {
    const Configuration given(*this, config);
    callPlugin(library_.name, "validate", sink_,
               [&](vmmhost_error* error) { return library_.functions->validate(&hostApi(), given.get(), error) == 0; });
  }

  LaunchPlan plan(schema::VmConfig::Reader config) override {
    const Configuration given(*this, config);
    vmmhost_launch_plan plan = {};
    plan.size = sizeof(plan);
    callPlugin(library_.name, "plan", sink_, [&](vmmhost_error* error) {
      return library_.functions->plan(&hostApi(), given.get(), &plan, error) == 0;
    });
    const Release release(*this, plan);
    try {
      return copyLaunchPlan(plan, path_.substr(0, path_.rfind('/')), library_.functions->abi);
    } catch (const Error& error) {
      throw backendError(library_.name, error);
    }
  }

 private:
  // A field of which the plugin knows nothing would be ignored in silence.
  void refuseNewerFields(schema::VmConfig::Reader config) const {
    const std::uint32_t abi = library_.functions->abi;
    const auto field = config::findNewerField(config, static_cast<std::uint16_t>(abi & 0xffff), configFields_);
    if (!field) {
      return;
    }
    const std::string what = field->path + ": " + (field->value.empty() ? "" : inQuotes(field->value) + ' ');
    throw backendError(
        library_.name,
        Error(ErrorCode::kUnsupported,
              what + "came with version " + abiText((VMMHOST_PLUGIN_ABI_MAJOR << 16) | field->since) +
                  " of the plugin interface, and this plugin was built for version " + abiText(abi),
              "remove " + field->path + ", or install a version of the backend that was built for this host")
            .withField(field->path));
  }

  // A configuration in the form that crosses the boundary. There is no other way for one to a plugin.
  class Configuration {
   public:
    Configuration(const LoadedPlugin& plugin, schema::VmConfig::Reader config) {
      plugin.refuseNewerFields(config);
      message_.setRoot(config);
      config::clearKeptByHost(message_.getRoot<schema::VmConfig>());
      const auto given = message_.getRoot<schema::VmConfig>().asReader();
      words_ = capnp::canonicalize(given);
      text_.write = [given] { return config::writeJson(given); };
      config_.size = sizeof(config_);
      config_.capnp_words = words_.begin();
      config_.capnp_word_count = words_.size();
      config_.host_private = &text_;
    }
    Configuration(const Configuration&) = delete;
    Configuration& operator=(const Configuration&) = delete;
    const vmmhost_config* get() const { return &config_; }

   private:
    capnp::MallocMessageBuilder message_;
    kj::Array<capnp::word> words_;
    ConfigText text_;
    vmmhost_config config_ = {};
  };

  // Hands the plan back to the plugin. What goes wrong there is logged: the plan was good.
  class Release {
   public:
    Release(const LoadedPlugin& plugin, vmmhost_launch_plan& plan) : plugin_(plugin), plan_(plan) {}
    ~Release() {
      if (plan_.release == nullptr) {
        return;
      }
      try {
        callPlugin(plugin_.library_.name, "release", plugin_.sink_, [&](vmmhost_error*) {
          plan_.release(&plan_);
          return true;
        });
      } catch (const Error& error) {
        if (plugin_.sink_) {
          plugin_.sink_(VMMHOST_LOG_ERROR, error.message());
        }
      }
    }
    Release(const Release&) = delete;
    Release& operator=(const Release&) = delete;

   private:
    const LoadedPlugin& plugin_;
    vmmhost_launch_plan& plan_;
  };

  Library library_;
  std::string path_;
  std::vector<std::string> configFields_;
  LogSink sink_;
};

}  // namespace

std::shared_ptr<Plugin> loadPlugin(const TrustedFile& file, const std::string& name,
                                   std::vector<std::string> configFields, const LogSink& sink) {
  return std::make_shared<LoadedPlugin>(loadLibrary(file.file.get(), file.path, name, sink), file.path,
                                        std::move(configFields), sink);
}

}  // namespace vmmhost::plugin
