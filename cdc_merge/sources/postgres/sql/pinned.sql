-- Verifies the pinned settings: a pooler may strip them, and then values would change their text form.
SELECT current_setting('datestyle'), current_setting('intervalstyle'), current_setting('extra_float_digits'),
       current_setting('bytea_output'), current_setting('timezone'), current_setting('client_encoding'),
       current_setting('search_path')
